"""One suite that every loss passes: against independent float64 computations, at its limits, in half precision."""

import keyword
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own spelling)
from hypothesis import given, settings
from hypothesis import strategies as st

from nls_tune import InputError
from nls_tune.losses import LOSSES, NoisyLabelLoss, balanced_weights, make_loss
from nls_tune.losses.building import loss_class
from nls_tune.losses.registry import LOSS_SETTINGS, check_loss

NUM_SAMPLES = 20


def matrix_of(classes, seed=0):
    rng = np.random.default_rng(seed)
    noise = rng.dirichlet(np.ones(classes), classes)
    return 0.7 * np.eye(classes) + 0.3 * noise


def batch(samples=6, classes=5, seed=0, scale=3.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, generator=generator, dtype=torch.float64).mul_(scale).to(dtype)
    labels = torch.randint(0, classes, (samples,), generator=generator)
    return logits, labels, torch.randperm(NUM_SAMPLES, generator=generator)[:samples]


def made(name, classes=5, **given):
    needed = {"matrix": matrix_of(classes)} if LOSSES[name].needs == "matrix" else {}
    return make_loss(name, num_classes=classes, num_samples=NUM_SAMPLES, **{**needed, **given})


# The independent computations: one sample, numpy, from the formulas of the papers.


def softmax(z):
    e = np.exp(z - z.max())
    return e / e.sum()


def forward_reference(z, y, **_):
    return -math.log((matrix_of(len(z)).T @ softmax(z))[y])


def backward_reference(z, y, **_):
    return float(np.linalg.inv(matrix_of(len(z)))[y] @ -np.log(softmax(z)))


def elr_reference(z, y, lambda_=3.0, beta=0.7, **_):
    p = softmax(z).clip(1e-4, 1 - 1e-4)
    target = (1 - beta) * p / p.sum()  # the first use: the table is 0
    return -math.log(softmax(z)[y]) + lambda_ * math.log(1 - target @ p), target


def nce_rce_reference(z, y, alpha=1.0, beta=1.0):
    log_p = np.log(softmax(z))
    onehot = np.eye(len(z))[y].clip(1e-4, 1)
    return alpha * log_p[y] / log_p.sum() - beta * softmax(z) @ np.log(onehot)


def sce_reference(z, y, alpha=0.1, beta=1.0):
    log_onehot = np.full(len(z), -4.0)
    log_onehot[y] = 0
    return -alpha * math.log(softmax(z)[y]) - beta * softmax(z) @ log_onehot


def ce_eps_mae_reference(z, y, alpha=0.01, beta=5.0, m=1e5):
    p = softmax(z)
    q = p.copy()
    q[p.argmax()] += m
    q /= m + 1
    return -alpha * math.log(max(q[y], 1e-8)) + beta * np.abs(p - np.eye(len(z))[y]).sum()


def bootstrap_reference(z, y, beta=0.8, kind="hard"):
    p = softmax(z)
    own = np.eye(len(z))[p.argmax()] if kind == "hard" else p
    return -((beta * np.eye(len(z))[y] + (1 - beta) * own) @ np.log(p))


REFERENCES = {
    "ce": lambda z, y: -math.log(softmax(z)[y]),
    "gls": lambda z, y, smooth_rate=-0.5: -math.log(softmax(z)[y]) + smooth_rate * (z[y] - z.mean()),
    "gce": lambda z, y, q=0.7: (1 - softmax(z)[y] ** q) / q,
    "sce": sce_reference,
    "nce_rce": nce_rce_reference,
    "forward": forward_reference,
    "backward": backward_reference,
    "elr": lambda z, y, **given: elr_reference(z, y, **given)[0],
    "ce_eps_mae": ce_eps_mae_reference,
    "bootstrap": bootstrap_reference,
}
CASES = [
    *((name, {}) for name in LOSSES if name != "gls"),
    ("gls", {"smooth_rate": -4.0}),
    ("gce", {"gce_q": 0.2}),
    ("sce", {"sce_alpha": 6.0, "sce_beta": 0.1}),
    ("nce_rce", {"nce_rce_alpha": 10.0, "nce_rce_beta": 0.1}),
    ("elr", {"elr_lambda": 7.0, "elr_beta": 0.9}),
    ("ce_eps_mae", {"ce_eps_mae_alpha": 0.5, "ce_eps_mae_beta": 1.0, "ce_eps_mae_m": 100.0}),
    ("bootstrap", {"bootstrap_beta": 0.95, "bootstrap_kind": "soft"}),
]


def reference(name, logits, labels, given):
    short = {setting.removeprefix(f"{name}_"): value for setting, value in given.items()}
    short = {f"{key}_" if keyword.iskeyword(key) else key: value for key, value in short.items()}
    rows = zip(logits.double().numpy(), labels.tolist(), strict=True)
    return float(np.mean([REFERENCES[name](z, y, **short) for z, y in rows]))


def numeric_gradient(function, logits, step=1e-6):
    found = torch.zeros_like(logits)
    for place in np.ndindex(*logits.shape):
        moved = [logits.clone(), logits.clone()]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found


def test_every_loss_has_a_reference():
    assert REFERENCES.keys() == LOSSES.keys()
    assert {name for name, _ in CASES} == LOSSES.keys()


@pytest.mark.parametrize(("name", "given_settings"), CASES)
def test_the_value_is_that_of_the_papers_formula(name, given_settings):
    logits, labels, indices = batch()
    found = made(name, **given_settings).double()(logits, labels, indices)
    rtol = 1e-5 if name in ("forward", "backward") else 1e-9  # their matrix is kept in float32
    assert found.item() == pytest.approx(reference(name, logits, labels, given_settings), rel=rtol)
    assert found.ndim == 0
    assert found.dtype == torch.float64


@pytest.mark.parametrize(("name", "given_settings"), CASES)
def test_the_gradient_is_that_of_the_papers_formula(name, given_settings):
    logits, labels, indices = batch(scale=1.0)
    logits.requires_grad_()
    made(name, **given_settings).double()(logits, labels, indices).backward()
    fixed = logits.detach()
    if name == "elr":  # its target is a constant to the gradient
        lambda_, beta = given_settings.get("elr_lambda", 3.0), given_settings.get("elr_beta", 0.7)
        targets = [elr_reference(z, 0, lambda_, beta)[1] for z in fixed.numpy()]

        def of(moved):
            rows = zip(moved.numpy(), labels.tolist(), targets, strict=True)
            parts = [
                -math.log(softmax(z)[y]) + lambda_ * math.log(1 - t @ softmax(z).clip(1e-4, 1 - 1e-4))
                for z, y, t in rows
            ]
            return float(np.mean(parts))
    else:

        def of(moved):
            return reference(name, moved, labels, given_settings)

    torch.testing.assert_close(logits.grad, numeric_gradient(of, fixed), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("name", "given_settings"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_make_a_mean_of_single_losses_over_the_sum_of_the_weights(name, given_settings, dtype):
    logits, labels, indices = batch(dtype=dtype)
    weights = torch.tensor([0.5, 2.0, 1.0, 4.0, 0.25])
    rows = range(len(labels))
    single = [
        made(name, **given_settings).double()(logits[i : i + 1], labels[i : i + 1], indices[i : i + 1]) for i in rows
    ]
    found = made(name, class_weights=weights, **given_settings).double()(logits, labels, indices)
    of = weights[labels].double()
    expected = (torch.stack(single).double() * of).sum() / of.sum()
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)
    alike = made(name, class_weights=torch.full((5,), 3.0), **given_settings).double()(logits, labels, indices)
    torch.testing.assert_close(alike, made(name, **given_settings).double()(logits, labels, indices))


@pytest.mark.parametrize("name", ["ce", "gls"])
def test_class_weights_of_probabilities_are_those_of_their_labels(name):
    logits, labels = torch.randn(8, 5, dtype=torch.float64), torch.arange(8) % 5
    weights = [0.5, 1.0, 2.0, 3.0, 0.25]
    settings = {"smooth_rate": -0.4} if name == "gls" else {}
    loss = made(name, class_weights=weights, **settings).double()
    sure = torch.nn.functional.one_hot(labels, 5).double()
    torch.testing.assert_close(loss(logits, sure), loss(logits, labels))
    torch.testing.assert_close(loss(logits, sure.roll(1, 0)), loss(logits, labels.roll(1)))


def test_class_weights_of_probabilities_are_not_rounded_under_autocast():
    logits, soft = torch.randn(64, 5), torch.rand(64, 5)
    loss = made("ce", class_weights=[0.513, 1.017, 2.071, 3.33, 0.257])
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(logits, soft / soft.sum(1, keepdim=True))
    assert torch.equal(found, loss(logits, soft / soft.sum(1, keepdim=True)))


def test_weighted_cross_entropy_is_that_of_torch():
    logits, labels, _ = batch(dtype=torch.float32)
    weights = torch.tensor([0.5, 2.0, 1.0, 4.0, 0.25])
    found = made("ce", class_weights=weights)(logits, labels)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, weight=weights))


def test_balanced_weights_make_up_for_the_sizes_of_the_classes():
    labels = torch.tensor([0] * 6 + [2] * 2)
    weights = balanced_weights(labels, 3)
    assert weights.tolist() == pytest.approx([8 / 18, 0, 8 / 6])
    scikit_learn = len(labels) / (2 * torch.bincount(labels)[[0, 2]])  # which counts the classes that are there
    torch.testing.assert_close(weights[[0, 2]] * 3 / 2, scikit_learn)


def test_a_loss_of_ones_own_takes_no_weights():
    with pytest.raises(InputError, match="own_loss:RememberingLoss is your own; weigh in it"):
        make_loss("own_loss:RememberingLoss", num_classes=2, num_samples=3, class_weights=[1.0, 2.0])


@pytest.mark.parametrize("name", LOSSES)
@given(samples=st.integers(1, NUM_SAMPLES), classes=st.integers(2, 12), seed=st.integers(0, 1000))
@settings(max_examples=15, deadline=None)
def test_any_shape_gives_a_finite_mean_over_the_samples(name, samples, classes, seed):
    logits, labels, indices = batch(samples, classes, seed)
    given_settings = {"smooth_rate": -1.0} if name == "gls" else {}
    whole = made(name, classes, **given_settings).double()(logits, labels, indices)
    single = [
        made(name, classes, **given_settings).double()(logits[i : i + 1], labels[i : i + 1], indices[i : i + 1])
        for i in range(samples)
    ]
    torch.testing.assert_close(whole, torch.stack(single).mean())
    assert whole.isfinite()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_half_precision_is_computed_in_float32(name, dtype, scale):
    logits, labels, indices = batch(scale=scale, dtype=dtype)
    logits.requires_grad_()
    given_settings = {"smooth_rate": -1.0} if name == "gls" else {}
    loss = made(name, **given_settings)(logits, labels, indices)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    exact = made(name, **given_settings)(logits.detach().float(), labels, indices)
    torch.testing.assert_close(loss, exact)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1e4, 1e30])
def test_logits_of_any_finite_size_give_no_nan(name, size):
    logits = torch.tensor([[size, -size, 0.0], [-size, size, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    given_settings = {"smooth_rate": -1.0} if name == "gls" else {}
    loss = made(name, 3, **given_settings)(logits, torch.tensor([0, 0, 2]), torch.arange(3))
    loss.backward()
    assert not loss.isnan()
    assert not logits.grad.isnan().any()


@pytest.mark.parametrize("name", LOSSES)
def test_logits_that_are_not_finite_show_in_the_loss(name):
    # The training then ends as diverged, and never with a number that means nothing.
    logits = torch.full((2, 3), math.nan)
    given_settings = {"smooth_rate": -1.0} if name == "gls" else {}
    assert not made(name, 3, **given_settings)(logits, torch.tensor([0, 1]), torch.arange(2)).isfinite()


LIMITS = {
    "GCE at q = 0": ("gce", {"gce_q": 0.0}),
    "GCE near q = 0": ("gce", {"gce_q": 1e-12}),
    "SCE without RCE": ("sce", {"sce_alpha": 1.0, "sce_beta": 0.0}),
    "forward without noise": ("forward", {"matrix": np.eye(5)}),
    "backward without noise": ("backward", {"matrix": np.eye(5)}),
    "ELR without its regulariser": ("elr", {"elr_lambda": 0.0}),
    "bootstrap of the labels alone, hard": ("bootstrap", {"bootstrap_beta": 1.0}),
    "bootstrap of the labels alone, soft": ("bootstrap", {"bootstrap_beta": 1.0, "bootstrap_kind": "soft"}),
    "epsilon-softmax at m = 0": ("ce_eps_mae", {"ce_eps_mae_alpha": 1.0, "ce_eps_mae_beta": 0.0, "ce_eps_mae_m": 0.0}),
    "GLS at rate 0": ("gls", {"smooth_rate": 0.0}),
    "CE": ("ce", {}),
}


@pytest.mark.parametrize("name", LIMITS)
def test_the_limits_are_cross_entropy(name):
    loss, given_settings = LIMITS[name]
    logits, labels, indices = batch(scale=1.0)
    gradients = []
    for function in (made(loss, **given_settings).double(), lambda z, y, _: F.cross_entropy(z, y)):
        z = logits.clone().requires_grad_()
        value = function(z, labels, indices)
        gradients.append((value.detach(), torch.autograd.grad(value, z)[0]))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-9, rtol=1e-9)


def test_gce_at_q_1_is_half_the_mean_absolute_error():
    logits, labels, indices = batch()
    mae = (logits.softmax(1) - F.one_hot(labels, 5)).abs().sum(1).mean()
    torch.testing.assert_close(2 * made("gce", gce_q=1.0)(logits, labels, indices), mae)


def test_the_backward_loss_averages_to_the_clean_loss_over_the_noise():
    logits, _, _ = batch(1)
    matrix, loss = matrix_of(5), made("backward").double()
    of_labels = torch.stack([loss(logits, torch.tensor([label])) for label in range(5)])
    expected = torch.tensor(matrix) @ of_labels
    torch.testing.assert_close(expected, -logits.log_softmax(1)[0], atol=1e-5, rtol=1e-5)


def test_the_forward_loss_is_least_where_the_probabilities_are_the_clean_posterior():
    matrix = torch.tensor(matrix_of(3))
    clean = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    noisy = clean @ matrix
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    loss = made("forward", 3).double()
    optimizer = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        value = sum(noisy[y] * loss(logits, torch.tensor([y])) for y in range(3))
        value.backward()
        return value

    optimizer.step(closure)
    torch.testing.assert_close(logits.detach().softmax(1)[0], clean, atol=1e-4, rtol=1e-4)


def test_elr_keeps_a_running_mean_of_each_samples_probabilities():
    loss = made("elr", 3, elr_beta=0.9)
    indices = torch.tensor([4, 7])
    expected = torch.zeros(2, 3)
    for seed in range(3):
        logits, labels, _ = batch(2, 3, seed, dtype=torch.float32)
        loss(logits, labels, indices)
        p = logits.softmax(1).clamp(1e-4, 1 - 1e-4)
        expected = 0.9 * expected + 0.1 * p / p.sum(1, keepdim=True)
    torch.testing.assert_close(loss.targets[indices], expected)
    others = [i for i in range(NUM_SAMPLES) if i not in (4, 7)]
    assert not loss.targets[others].any()
    assert list(loss.state_dict()) == ["targets"]


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "elr"])
def test_losses_that_remember_nothing_have_no_state(name):
    given_settings = {"smooth_rate": -1.0} if name == "gls" else {}
    assert made(name, **given_settings).state_dict() == {}


@pytest.mark.parametrize("name", LOSSES)
def test_settings_have_the_names_and_defaults_of_the_class(name):
    parameters = {"smooth_rate": -0.5} if name == "gls" else {}
    built = made(name, **parameters)
    assert isinstance(built, NoisyLabelLoss)
    assert type(built).__doc__
    for setting, parameter in LOSSES[name].settings.items():
        short = setting.removeprefix(f"{name}_")
        found = getattr(built, f"{short}_" if keyword.iskeyword(short) else short)
        assert found == parameter["default"]
        assert setting == "smooth_rate" or LOSS_SETTINGS[setting] == name


# Errors


def test_a_loss_that_does_not_exist_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown loss 'gse'.*valid: ce, gls"):
        make_loss("gse")


def test_a_setting_of_another_loss_is_refused():
    with pytest.raises(InputError, match="unknown setting of loss gce 'sce_beta'"):
        make_loss("gce", sce_beta=1.0)
    with pytest.raises(InputError, match="it has none"):
        make_loss("ce", gce_q=0.5)


def test_what_a_loss_needs_must_be_given():
    with pytest.raises(InputError, match="num_classes and num_samples"):
        make_loss("elr")
    with pytest.raises(InputError, match="needs a transition matrix"):
        make_loss("forward")
    with pytest.raises(ValueError, match="indices"):
        made("elr")(*batch()[:2])


def test_a_matrix_without_an_inverse_is_refused_by_the_backward_loss():
    with pytest.raises(InputError, match="use loss forward"):
        make_loss("backward", matrix=np.full((3, 3), 1 / 3))


class OwnLoss(NoisyLabelLoss):
    def __init__(self, num_classes, num_samples):
        super().__init__()
        self.num_classes, self.num_samples = num_classes, num_samples

    def forward(self, logits, targets, indices=None):
        return F.cross_entropy(logits, targets)


def test_a_loss_of_ones_own_is_made_by_its_path():
    own = make_loss(f"{__name__}:OwnLoss", num_classes=3, num_samples=9)
    assert (type(own).__name__, own.num_classes, own.num_samples) == ("OwnLoss", 3, 9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:Loss", "cannot be imported.*PYTHONPATH"),
        (f"{__name__}:NoSuchLoss", "cannot be imported"),
        (f"{__name__}:batch", "must be a class of torch.nn.Module"),
    ],
)
def test_a_loss_of_ones_own_that_cannot_be_used_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        loss_class(name)


@pytest.mark.parametrize("name", ["a:", ":b", "a b:C", "a/b.py:C", "a:b:c"])
def test_a_path_must_be_one_of_python(name):
    with pytest.raises(InputError, match=r"module\.path:Class"):
        check_loss(name)
