import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from estimates import estimate_of, hide_the_truth

from nls_tune.allocation.allocator import Allocator
from nls_tune.datasets import make_noisy
from nls_tune.errors import InputError
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.plan.level_data import LevelData
from nls_tune.plan.plan import make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.plan.space import choose_preset
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.run_json import RunIdentity, RunLevel
from nls_tune.runs.trial_spec import DataName
from nls_tune.session.continuing import differences

DIGITS = {"dataset": "digits", "noise": ("symmetric:0.4",), "train_size": 200, "overrides": ("batch_size=32",)}


def plan_of(num_gpus: float = 0, **settings):
    return make_plan(check_search_settings(**{"dataset": "twonorm", **settings}), num_gpus, progress=False)


def identity_of(plan):
    return plan.identity().model_dump(mode="json")


@pytest.fixture(scope="module")
def twonorm():
    return plan_of()


@pytest.fixture(scope="module")
def digits():
    return plan_of(**DIGITS)


# What runs


def test_the_defaults_are_those_of_twonorm(twonorm):
    assert [p.level for p in twonorm.levels] == [f"symmetric:{r}" for r in ("0", "0.1", "0.2", "0.3", "0.4")]
    assert (twonorm.info.name, twonorm.space.name) == ("twonorm", "twonorm")
    assert (twonorm.preset, twonorm.preset_reason) == (None, "no GPU found, the space has no preset cpu")
    assert all(p.quotas == {"ce": 5, "positive": 5, "negative": 10} for p in twonorm.levels)
    assert twonorm.num_trials == 100
    assert twonorm.notes == ()


@pytest.mark.parametrize(("level", "rate"), [("0", 0), ("0.1", -0.25), ("0.2", -2 / 3), ("0.3", -1.5), ("0.4", -4)])
def test_every_level_starts_with_zero_the_usual_and_the_noise_cancelling_rate(twonorm, level, rate):
    found = twonorm.level_plan(f"symmetric:{level}")
    assert found.noise_cancelling_rate == pytest.approx(rate, abs=1e-12)
    defaults = {"warmup_epochs": 4, "lr": 3e-3}
    assert found.start["ce"] == ({"smooth_rate": 0.0, **defaults},)
    assert found.start["positive"] == ({"smooth_rate": 0.1, **defaults},)
    if rate == 0:
        assert found.start["negative"] == ({"smooth_rate": -1.0, **defaults},)  # the space's: no arm begins with luck
    else:
        (start,) = found.start["negative"]
        assert start == {"smooth_rate": pytest.approx(rate, rel=1e-3), **defaults}


@pytest.mark.parametrize(
    ("level", "rate", "start"),
    [("symmetric:0.85", -17, -8), ("symmetric:0.9", None, -0.5), ("symmetric:1", None, -0.5), ("clean", 0, -0.5)],
)
def test_a_noise_cancelling_rate_is_clipped_or_left_out(level, rate, start):
    (found,) = plan_of(**{**DIGITS, "noise": (level,)}).levels
    assert found.noise_cancelling_rate == (None if rate is None else pytest.approx(rate))
    assert [p["smooth_rate"] for p in found.start["negative"]] == [start]  # without one the default of the space


def test_other_noise_has_its_symmetric_equivalent():
    (found,) = plan_of(**{**DIGITS, "noise": ("pairflip:0.3",)}).levels
    signal = 1 - found.noise_rate * 10 / 9
    assert 0.25 < found.noise_rate < 0.35
    assert found.noise_cancelling_rate == pytest.approx(-(1 - signal) / signal)


def test_budgets_of_the_command_come_before_those_of_the_space():
    plan = plan_of(**{**DIGITS, "num_trials": 6, "epochs": 20})
    budget = plan.space.budget
    assert (budget.trials, budget.epochs, budget.train_size, budget.grace_epochs) == (6, 20, 200, 3)
    assert plan.levels[0].quotas == {"ce": 2, "positive": 3, "negative": 1}
    assert plan.levels[0].dataset.num_train == 200
    assert plan.space.space["warmup_epochs"].high == 8
    assert plan.rungs().levels == (3, 6, 12)


def test_groups_are_levels_and_arms_with_their_quotas(twonorm):
    groups = twonorm.groups()
    assert [str(g.key) for g in groups][:4] == [
        "symmetric:0/ce", "symmetric:0/positive", "symmetric:0/negative", "symmetric:0.1/ce",
    ]  # fmt: skip
    assert len(groups) == 15
    assert sum(g.num_trials for g in groups) == twonorm.num_trials
    for group in groups:
        assert group.share == group.num_trials
        assert len(group.start) <= group.num_trials


def test_no_group_has_more_start_points_than_trials(tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(
        "space: {smooth_rate: {type: float, low: -8, high: 0.5, default: -1}}\n"
        "fixed: {model: mlp, warmup_epochs: 1, lr: 0.01}\n"
        "start: [{smooth_rate: -2}, {smooth_rate: -3}, {smooth_rate: -5}]\n"
        "budget: {epochs: 9, grace_epochs: 3}\n"
    )
    plan = plan_of(**{**DIGITS, "space": str(path), "num_trials": 4})
    (negative,) = [g for g in plan.groups() if g.key.arm == "negative"]
    assert [c["smooth_rate"] for c in negative.start] == [pytest.approx(-0.8), -2]


def test_trials_are_named_by_level_configuration_and_data(twonorm):
    config = twonorm.space.default()

    def name(plan, level, config=config, stage="search", seed=None):
        return LevelData(plan).trial(level, plan.training_settings(config, seed), stage).trial_id

    first, second = name(twonorm, "symmetric:0.1"), name(twonorm, "symmetric:0.2")
    assert len({first, second, name(twonorm, "symmetric:0.1", {**config, "lr": 0.004})}) == 3
    assert name(plan_of(noise=("symmetric:0.1",)), "symmetric:0.1") == first
    assert name(plan_of(noise=("symmetric:0.1",), noise_seed=1), "symmetric:0.1") != first
    assert name(plan_of(noise=("symmetric:0.1",), seed=1), "symmetric:0.1") != first
    assert name(twonorm, "symmetric:0.1", stage="confirm") != first
    assert name(twonorm, "symmetric:0.1", seed=1) != first


PAPER = {
    "space": "cifar10n", "preset": "paper", "train_size": 400, "overrides": ("model=small_cnn", "crop_padding=1"),
}  # fmt: skip


def test_the_papers_preset_runs_every_rate_of_every_level_once():
    levels = ("symmetric:0.4", "symmetric:0.6")
    plan = plan_of(**{**DIGITS, **PAPER, "noise": levels})
    allocator = Allocator(plan.groups(), plan.rungs())
    data, found = LevelData(plan), {}
    while (suggestion := allocator.ask()) is not None:
        spec = data.trial(suggestion.group.noise_level, plan.training_settings(suggestion.config))
        found[spec.trial_id] = (spec.noise_level, spec.settings.smooth_rate)
        allocator.tell(suggestion.number, "completed", 0.5, 1.0)
    assert len(found) == 28
    paper = [-8, -6, -4, -2, -1, -0.8, -0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6, 0.8]
    for level in levels:
        assert sorted(rate for at, rate in found.values() if at == level) == paper


@pytest.mark.parametrize(
    ("weights", "trials"),
    [
        ((), (8, 8)),
        (("symmetric:0.40=2",), (16, 8)),
        (("symmetric:0.2=0.3", "symmetric:0.4=0.01"), (1, 2)),
    ],
)
def test_a_level_of_weight_2_has_twice_the_trials_and_the_time(weights, trials):
    levels = ("symmetric:0.4", "symmetric:0.2")
    plan = plan_of(**{**DIGITS, "noise": levels, "num_trials": 8, "level_weight": weights})
    assert tuple(sum(p.quotas.values()) for p in plan.levels) == trials
    for level, count in zip(levels, trials, strict=True):
        shares = [g.share for g in plan.groups() if g.key.noise_level == level]
        assert sum(shares) == count


# Where the noise-cancelling rate comes from


@pytest.fixture
def unknown_noise(monkeypatch):
    hide_the_truth(monkeypatch)


@pytest.mark.parametrize(("flag", "expected"), [(None, False), (True, True)])
def test_known_noise_is_estimated_only_on_demand(flag, expected):
    (level,) = plan_of(noise=("symmetric:0.2",), estimate_noise=flag).levels
    assert (level.needs_estimate, level.prior) == (expected, "true noise")


#: Where nothing is known of the noise the negative arm begins with the default rate of Twonorm's space.
OF_THE_SPACE = ({"smooth_rate": -1.0, "warmup_epochs": 4, "lr": 3e-3},)


@pytest.mark.parametrize(
    ("flag", "expected", "prior"), [(None, True, "unknown"), (True, True, "unknown"), (False, False, "none")]
)
def test_unknown_noise_is_estimated_unless_forbidden(unknown_noise, flag, expected, prior):
    (level,) = plan_of(noise=("symmetric:0.2",), estimate_noise=flag).levels
    assert (level.needs_estimate, level.prior) == (expected, prior)
    assert (level.noise_rate, level.noise_cancelling_rate) == (None, None)
    assert level.start["negative"] == OF_THE_SPACE


def test_an_estimate_of_unknown_noise_gives_a_start_point_and_is_not_the_truth(unknown_noise):
    plan = plan_of(noise=("symmetric:0.2", "symmetric:0.4")).with_estimate(estimate_of("symmetric:0.4"))
    first, second = plan.levels
    assert (first.prior, first.estimate, first.start["negative"]) == ("unknown", None, OF_THE_SPACE)
    assert (second.prior, second.noise_rate, second.noise_cancelling_rate) == ("estimate", None, None)
    assert [point["smooth_rate"] for point in second.start["negative"]] == [-1.5]
    (group,) = [g for g in plan.groups() if g.key == ("symmetric:0.4", "negative")]
    assert group.start == second.start["negative"]
    without = plan.with_estimate(estimate_of("symmetric:0.2", noise_cancelling_rate=None))
    assert without.levels[0].start["negative"] == OF_THE_SPACE
    first_facts, second_facts = plan.run_levels()
    assert first_facts.estimate is None
    assert NoiseEstimate.from_json(json.loads(second_facts.model_dump_json())["estimate"]) == second.estimate


def test_an_estimate_by_weak_models_gives_no_start_point_of_its_own(unknown_noise):
    weak = estimate_of("symmetric:0.4", is_weak=True)
    (level,) = plan_of(noise=("symmetric:0.4",)).with_estimate(weak).levels
    assert (level.prior, level.start["negative"]) == ("weak estimate", OF_THE_SPACE)


def test_the_true_noise_of_labels_that_people_gave_is_shown_and_not_used(monkeypatch):
    """Clean labels would tell it, and then they would have taken part in the search."""

    def by_people(source, level, **settings):
        return replace(make_noisy(source, level, **settings), noise_level="human:worst")

    monkeypatch.setattr("nls_tune.plan.plan.make_noisy", by_people)
    plan = plan_of(noise=("symmetric:0.4",))
    (level,) = plan.levels
    assert (level.prior, level.start["negative"]) == ("none", OF_THE_SPACE)
    assert level.noise_cancelling_rate == pytest.approx(-4, abs=0.1)
    (estimated,) = plan.with_estimate(estimate_of("human:worst")).levels
    assert (estimated.prior, [point["smooth_rate"] for point in estimated.start["negative"]]) == ("estimate", [-1.5])


def test_an_estimate_beside_the_truth_changes_no_start_point():
    plan = plan_of(noise=("symmetric:0.4",), estimate_noise=True)
    (before,), (after,) = plan.levels, plan.with_estimate(estimate_of("symmetric:0.4")).levels
    assert (after.prior, after.start) == ("true noise", before.start)
    assert after.noise_cancelling_rate == pytest.approx(-4)


def test_whether_noise_is_estimated_must_agree_when_a_run_is_resumed():
    before, now = (identity_of(plan_of(noise=("symmetric:0.4",), estimate_noise=flag)) for flag in (None, True))
    assert differences(before, now) == ["settings.estimate_noise: None -> True"]
    del before["settings"]["estimate_noise"]  # a run of an earlier version
    assert differences(before, identity_of(plan_of(noise=("symmetric:0.4",)))) == []


# Notes


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        (
            PAPER,
            (
                "arm ce has 1 configuration in all and then ends",
                "arm positive has 4 configurations in all and then ends",
                "arm negative has 9 configurations in all and then ends",
            ),
        ),
        ({"num_trials": 2}, ("arm positive gets no trial of 2; raise --num-trials",)),
        (
            {"noise": ("symmetric:0.4", "clean"), "num_trials": 8, "level_weight": ("clean=0.25",)},
            ("clean: arm positive gets no trial of 2; raise --num-trials",),
        ),
        (
            {"overrides": ("batch_size=32", "arms.ce=0", "arms.positive=0")},
            ("without the ce arm no gain can be told; give it a share in arms",),
        ),
    ],
)
def test_notes_on_arms(changes, notes):
    assert plan_of(**{**DIGITS, **changes}).notes == notes


# What must agree when a run is resumed


def test_identity_and_facts_survive_json(digits):
    assert RunIdentity.model_validate_json(digits.identity().model_dump_json()) == digits.identity()
    (facts,) = [RunLevel.model_validate_json(level.model_dump_json()) for level in digits.run_levels()]
    assert (facts.noise_level, facts.num_train, facts.num_val) == ("symmetric:0.4", 200, 144)
    assert facts.trials == {"ce": 6, "positive": 12, "negative": 6}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, ["seed: 0 -> 1", "fingerprints.symmetric:0.4"]),
        ({"noise_seed": 1}, ["noise_seed: 0 -> 1", "fingerprints.symmetric:0.4"]),
        ({"objective": "last"}, ["objective: best -> last"]),
        ({"num_trials": 9}, ["budget.trials: 24 -> 9"]),
        ({"epochs": 10}, ["budget.epochs: 40 -> 10"]),
        ({"train_size": 100}, ["budget.train_size: 200 -> 100"]),
        ({"overrides": ("batch_size=16",)}, ["fixed.batch_size: 32 -> 16"]),
        ({"noise": ("symmetric:0.2",)}, ["noise", "symmetric:0.2"]),
        ({"level_weight": ("symmetric:0.4=2",)}, ["level_weight: None -> {'symmetric:0.4': 2.0}"]),
    ],
)
def test_what_decides_the_results_may_not_differ(digits, changes, words):
    found = "; ".join(differences(identity_of(digits), identity_of(plan_of(**{**DIGITS, **changes}))))
    for word in words:
        assert word in found


@pytest.mark.parametrize(
    "changes",
    [
        # Where and how fast.
        {
            **{"out": Path("x"), "data_dir": Path(), "trials_per_gpu": 2, "cpus_per_trial": 2, "compile": "on"},
            **{"address": "auto", "warmup_store": "none", "time_budget": 60},
            "level_weight": ("symmetric:0.4=1",),  # what it is anyway
        },
        # The same in other words.
        {"noise": ("Symmetric:0.40",), "preset": "cpu", "space": "digits", "num_trials": 24},
    ],
)
def test_what_may_differ(digits, changes):
    assert plan_of(**{**DIGITS, **changes}).identity() == digits.identity()


def test_the_objective_of_a_run_is_the_one_that_its_schedule_has_unless_one_is_given(digits):
    assert digits.identity().settings["objective"] == "best"  # as in runs of earlier versions
    assert plan_of(**DIGITS, objective="best").identity() == digits.identity()
    cycle = {**DIGITS, "overrides": ("schedule=one_cycle",)}
    assert plan_of(**cycle).identity().settings["objective"] == "last"
    assert plan_of(**cycle, objective="last").identity() == plan_of(**cycle).identity()


def test_mirror_images_are_another_search_and_need_images(digits):
    assert "tta" not in digits.identity().settings  # as in runs of earlier versions
    mirrored = identity_of(plan_of(**DIGITS, tta="mirror"))
    assert differences(identity_of(digits), mirrored) == ["settings.tta: None -> mirror"]
    with pytest.raises(InputError, match=r"--tta mirror is for images, the inputs have shape \(20,\); leave it out"):
        plan_of(noise=("symmetric:0.4",), tta="mirror")


def test_another_metric_is_another_search(digits):
    assert "metric" not in digits.identity().settings  # as in runs of earlier versions
    assert plan_of(**DIGITS, metric="accuracy").identity() == digits.identity()
    other = identity_of(plan_of(**DIGITS, metric="macro_f1"))
    assert differences(identity_of(digits), other) == ["settings.metric: None -> macro_f1"]
    with pytest.raises(InputError, match="--metric"):
        plan_of(**DIGITS, metric="f1")


def test_differences_name_the_key_and_both_values(digits):
    before = {"same": 1, "a": {"b": 1, "gone": 2}, "list": [1]}
    now = {"same": 1, "a": {"b": 3, "new": 4}, "list": [1, 2]}
    assert differences(before, now) == [
        "a.b: 1 -> 3",
        "a.gone: 2 -> None",
        "a.new: None -> 4",
        "list: [1] -> [1, 2]",
    ]
    assert differences(now, now) == []


# A smaller test split


def test_a_smaller_test_split_is_a_stratified_part_that_the_seed_decides(digits):
    whole = digits.levels[0].dataset
    small, again, other = (plan_of(**DIGITS, test_size=100, **more) for more in ({}, {}, {"seed": 1}))
    found = small.levels[0].dataset
    counts, before = (np.bincount(dataset.test_labels, minlength=10) for dataset in (found, whole))
    assert len(found.test_inputs) == len(found.test_labels) == 100
    np.testing.assert_allclose(counts, before * 100 / before.sum(), atol=1)
    np.testing.assert_array_equal(found.test_inputs, again.levels[0].dataset.test_inputs)
    assert not np.array_equal(found.test_inputs, other.levels[0].dataset.test_inputs)
    np.testing.assert_array_equal(found.train_indices, whole.train_indices)
    np.testing.assert_array_equal(found.noisy_labels, whole.noisy_labels)
    # Another draw of the noise, for a confirmation, is tested on the same samples.
    redrawn = LevelData(small).load(DataName("symmetric:0.4", 1))
    assert redrawn.test_inputs is found.test_inputs


def test_a_smaller_test_split_is_another_search_and_the_whole_one_is_not(digits):
    assert plan_of(**DIGITS, test_size=digits.info.num_test).identity() == digits.identity()
    small = plan_of(**DIGITS, test_size=100)
    size, data = differences(identity_of(digits), identity_of(small))
    assert size == "settings.test_size: None -> 100"
    assert data.startswith("fingerprints.symmetric:0.4: ")
    assert "test_size" not in digits.identity().settings  # as in runs of earlier versions


# Presets


@pytest.mark.parametrize(
    ("preset", "gpus", "presets", "expected"),
    [
        ("auto", 0, "cpu: {}, gpu: {}", ("cpu", "no GPU found")),
        ("auto", 1, "cpu: {}, gpu: {}", ("gpu", "1 GPU found")),
        ("auto", 8, "cpu: {}", (None, "8 GPUs found, the space has no preset gpu")),
        ("auto", 0, "quick: {}", (None, "no GPU found, the space has no preset cpu")),
        ("cpu", 8, "cpu: {}", ("cpu", "as asked for")),
        ("gpu", 0, "cpu: {}", (None, "as asked for, the space has no preset gpu")),
        ("quick", 8, "gpu: {}, quick: {}", ("quick", "as asked for")),
    ],
)
def test_the_preset_follows_the_machine_unless_asked_for(tmp_path, preset, gpus, presets, expected):
    path = tmp_path / "own.yaml"
    path.write_text(f"presets: {{{presets}}}\n")
    assert choose_preset(check_search_settings(preset=preset, space=str(path)), gpus) == expected


@pytest.mark.parametrize(
    ("level", "hopeless"), [("symmetric:0.4", False), ("symmetric:0.5", True), ("symmetric:1", True)]
)
def test_noise_that_validation_cannot_choose_under_is_said(level, hopeless):
    notes = plan_of(noise=(level,)).notes
    assert any(level in note and "cannot choose" in note for note in notes) == hopeless


@pytest.mark.parametrize(
    ("given", "place"), [(None, "run/warmups"), ("none", None), ("~/store", "store"), ("a/b", "a/b")]
)
def test_where_shared_warm_ups_are(digits, tmp_path, monkeypatch, given, place):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    plan = replace(digits, settings=replace(digits.settings, warmup_store=given))
    assert plan.warmup_store(RunDirectory("run")) == (place and tmp_path / place)
