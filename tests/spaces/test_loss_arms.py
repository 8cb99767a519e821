"""Other losses as arms: which settings they search, what they are called, and how trials are shared."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_spaces import BUDGET, LOG1M, LR, WARMUP, make_space

from nls_tune.losses import LOSSES
from nls_tune.losses.registry import LOSS_SETTINGS
from nls_tune.spaces.parameters import coerce
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.settings import TrainingSettings, method_of, ordered_arms

OTHERS = [name for name in LOSSES if name not in ("ce", "gls")]


def test_the_settings_of_the_losses_are_training_settings_with_their_defaults():
    for setting, loss in LOSS_SETTINGS.items():
        assert TrainingSettings.model_fields[setting].default == LOSSES[loss].settings[setting]["default"]
        assert setting.startswith(f"{loss}_")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"smooth_rate": -1.5}, "smooth_rate -1.5"),
        ({"loss": "forward"}, "forward"),
        ({"loss": "bootstrap", "bootstrap_beta": 0.5}, "bootstrap, bootstrap_beta 0.5, bootstrap_kind hard"),
    ],
)
def test_a_loss_is_named_with_its_own_settings(settings, text):
    assert TrainingSettings(**settings).loss_text() == text


def test_what_early_runs_lack_changes_neither_name_nor_warm_up():
    early = TrainingSettings(smooth_rate=-1.0).identity()
    assert not {"loss", "transition", *LOSS_SETTINGS} & set(early)
    other = TrainingSettings(loss="elr", elr_beta=0.9)
    assert {"loss": "elr", "elr_beta": 0.9}.items() <= other.identity().items()
    assert other.warmup_settings() == TrainingSettings().warmup_settings()


@pytest.mark.parametrize("loss", OTHERS)
def test_another_loss_is_an_arm_of_its_name(loss):
    settings = TrainingSettings(loss=loss, warmup_epochs=3)
    assert settings.arm == loss == method_of(loss)
    assert settings.first_counting_epoch == 4  # no trial may win by its CE warm-up
    with pytest.raises(ValueError, match="smooth_rate must be 0 with loss"):
        TrainingSettings(loss=loss, smooth_rate=-1.0)


def test_the_loss_ce_counts_from_the_first_epoch_as_gls_at_rate_0_does():
    assert TrainingSettings(loss="ce", warmup_epochs=3).first_counting_epoch == 1
    assert TrainingSettings(loss="ce").arm == "ce"


@pytest.mark.parametrize("transition", ["estimat", "matrix:", "file:m.csv"])
def test_a_matrix_comes_from_an_estimate_a_file_or_the_true_noise(transition):
    with pytest.raises(ValueError, match="transition must be estimate, true_noise or matrix:FILE"):
        TrainingSettings(transition=transition)


@pytest.mark.parametrize("loss", OTHERS)
def test_an_arm_searches_what_all_arms_share_and_the_settings_of_its_loss(loss):
    space = make_space(arms={"ce": 1, "negative": 1, **dict.fromkeys(OTHERS, 1)})
    own = list(LOSSES[loss].settings)
    arm = space.arm(loss)
    assert list(arm.distributions()) == ["warmup_epochs", "lr", *own]
    start = arm.start([0.0, 0.1])
    assert [list(point) for point in start] == [["loss", "smooth_rate", "warmup_epochs", "lr", *own]]
    settings = space.settings(start[0], 0)
    assert (settings.loss, settings.smooth_rate) == (loss, 0.0)
    assert space.config_of(settings) == start[0]
    assert arm.decode(arm.encode(start[0])) == start[0]


def test_the_arms_of_the_rate_are_what_they_were():
    space, before = make_space(arms={"ce": 1, "positive": 1, "negative": 2, "gce": 1}), make_space()
    for arm in ("ce", "positive", "negative"):
        assert space.arm(arm).distributions() == before.arm(arm).distributions()
        assert list(space.arm(arm).distributions()) == list(before.arm(arm).distributions())
        assert space.arm(arm).start([0.0, -1.0, 0.1]) == before.arm(arm).start([0.0, -1.0, 0.1])


def test_another_loss_starts_where_cross_entropy_starts():
    points = ({"smooth_rate": 0, "lr": 0.05}, {"smooth_rate": -2, "lr": 0.01})
    start = make_space(arms={"ce": 1, "gce": 1}, start=points).arm("gce").start([0.0, 0.1])
    assert [point["lr"] for point in start] == [3e-3, 0.05]


def test_a_space_may_search_or_fix_the_settings_of_a_loss():
    narrow = {"type": "float", "low": 0.5, "high": 0.9, "default": 0.6}
    searched = make_space(space={"smooth_rate": LOG1M, "lr": LR, "gce_q": narrow}, arms={"ce": 1, "gce": 1})
    assert searched.arm("gce").distributions()["gce_q"].high == 0.9
    assert "gce_q" not in searched.arm("ce").distributions()
    fixed = make_space(fixed={"model": "mlp", "gce_q": 0.5}, arms={"ce": 1, "gce": 1})
    assert list(fixed.arm("gce").distributions()) == ["warmup_epochs", "lr"]
    assert fixed.settings(fixed.default(loss="gce"), 0).gce_q == 0.5
    # A fixed setting of another loss does not change the name of a CE trial.
    assert fixed.settings(fixed.default(smooth_rate=0.0), 0) == make_space().settings(
        make_space().default(smooth_rate=0.0), 0
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": {"gls": 1}}, "gls is two arms"),
        ({"arms": {"gcee": 1}}, "unknown arm 'gcee'.*'gce'"),
        ({"arms": {"a b:C": 1}}, "module.path:Class"),
        ({"fixed": {"loss": "gce"}}, "loss cannot stand in space or fixed; use arms or --methods"),
        ({"start": ({"gce_q": 0.5},), "arms": {"gce": 1}}, "unknown start key 'gce_q'"),
    ],
)
def test_what_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        make_space(**changes)


def methods_of(quotas: dict[str, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for arm, count in quotas.items():
        found[method_of(arm)] = found.get(method_of(arm), 0) + count
    return found


@given(
    st.lists(st.sampled_from(["ce", "gls", *OTHERS, "my.losses:Own"]), min_size=2, unique=True),
    st.integers(1, 200),
    st.tuples(st.floats(0, 5), st.floats(0.01, 5)),
)
def test_every_method_has_as_many_trials(methods, num_trials, shares):
    space = make_space(arms={"ce": 1, "positive": shares[0], "negative": shares[1]}).with_methods(methods)
    found = methods_of(space.quotas(num_trials))
    if set(methods) <= {"ce", "gls"}:
        num_trials -= num_trials % 2  # these two are divided as the arms of a space are: to the last trial
        found = methods_of(space.quotas(num_trials))
    each = num_trials // len(methods)
    assert found == (dict.fromkeys(found, each) if each else {})
    assert set(found) == (set(methods) if each else set())


def test_gls_divides_its_trials_as_the_space_does():
    space = make_space(arms={"ce": 1, "positive": 2, "negative": 1}).with_methods(["ce", "gls", "gce"])
    assert space.quotas(18) == {"ce": 6, "positive": 4, "negative": 2, "gce": 6}
    assert methods_of(space.quotas(20)) == {"ce": 6, "gls": 6, "gce": 6}


def test_arms_have_one_order():
    names = ["my:B", "elr", "negative", "gce", "ce", "my:A", "gce"]
    assert ordered_arms(names) == ["ce", "negative", "gce", "elr", "my:A", "my:B"]


def test_methods_are_read_with_the_space_and_their_ranges_can_be_changed():
    space = load_space("twonorm", methods=["ce", "gce"], overrides=["gce_q.low=0.4"])
    assert space.space["gce_q"].low == 0.4
    assert space.arms == {"ce": 0.75, "gce": 0.75}
    assert "gce_q" not in load_space("twonorm").space


@pytest.mark.parametrize(("name", "value"), [("gce_q", "0.5"), ("bootstrap_kind", "soft"), ("elr_lambda", 1)])
def test_settings_of_losses_are_read_in_their_type(name, value):
    assert type(coerce(name, value)) is type(TrainingSettings.model_fields[name].default)


def test_a_large_comparison_is_checked_at_its_ends():
    space = make_space(budget=BUDGET, space={"smooth_rate": LOG1M, "warmup_epochs": WARMUP, "lr": LR})
    corners: list[Any] = list(space.with_methods(["ce", *OTHERS]).corner_settings())
    assert {settings.loss for settings in corners} == {"gls", *LOSS_SETTINGS.values()}
    assert all(math.isfinite(settings.lr) for settings in corners)


def test_a_name_that_is_no_loss_is_refused():
    with pytest.raises(ValueError, match="unknown loss 'gcee'"):
        TrainingSettings(loss="gcee")
