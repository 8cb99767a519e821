"""Tests of the loss: against soft-target cross-entropy at every rate, and against torch's own for r in [0, 1]."""

import itertools

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  (torch's own spelling)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from nls_tune.losses import GLSLoss, gls_loss

PAPER_RATES = (0.8, 0.6, 0.4, 0.2, 0.0, -0.2, -0.4, -0.6, -0.8, -1.0, -2.0, -4.0, -6.0, -8.0)
SHAPES = ((5,), (6, 5), (4, 5, 3), (2, 5, 3, 2))


def sample(shape=(6, 5), dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(shape, generator=generator, dtype=torch.float64).mul_(3).to(dtype)
    classes = shape[1] if len(shape) > 1 else shape[0]
    targets = torch.randint(0, classes, shape[:1] * (len(shape) > 1) + shape[2:], generator=generator)
    return logits, targets


def soft_targets(targets, classes, rate):
    axis = 1 if targets.ndim else 0
    onehot = F.one_hot(targets, classes).double().movedim(-1, axis)
    return (1 - rate) * onehot + rate / classes


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10, equal_nan=True)


def gradient(function, logits):
    logits = logits.clone().requires_grad_()
    return torch.autograd.grad(function(logits), logits)[0]


@pytest.mark.parametrize("rate", [*PAPER_RATES, 1.0, -100.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_equals_soft_target_cross_entropy_at_every_rate(rate, shape, reduction):
    logits, targets = sample(shape)
    soft = soft_targets(targets, 5, rate)
    expected = F.cross_entropy(logits, soft, reduction=reduction)
    close(gls_loss(logits, targets, rate, reduction=reduction), expected)
    close(
        gradient(lambda z: gls_loss(z, targets, rate, reduction=reduction).sum(), logits),
        gradient(lambda z: F.cross_entropy(z, soft, reduction=reduction).sum(), logits),
    )


@pytest.mark.parametrize("rate", PAPER_RATES)
def test_value_and_gradients_are_the_formulas(rate):
    logits, targets = sample()
    margin = logits[torch.arange(6), targets] - logits.mean(1)
    close(gls_loss(logits, targets, rate), (F.cross_entropy(logits, targets, reduction="none") + rate * margin).mean())
    formula = torch.softmax(logits, 1) - (1 - rate) * F.one_hot(targets, 5).double() - rate / 5
    close(gradient(lambda z: gls_loss(z, targets, rate, reduction="sum"), logits), formula)
    rates = torch.full((6,), rate, dtype=torch.float64, requires_grad=True)
    gls_loss(logits, targets, rates, reduction="sum").backward()
    torch.testing.assert_close(rates.grad, margin)


def test_torch_ignores_a_negative_label_smoothing():
    # Why this package has a loss of its own. If this fails, torch has changed: read its release notes.
    logits, targets = sample()
    torch_loss = F.cross_entropy(logits, targets, label_smoothing=-0.4)
    assert torch_loss == F.cross_entropy(logits, targets)
    assert torch_loss != gls_loss(logits, targets, -0.4)


@pytest.mark.parametrize("rate", [*PAPER_RATES, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight", [None, torch.tensor([0.5, 1.0, 2.0, 0.0, 3.0], dtype=torch.float64)])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_class_probabilities_take_the_place_of_one_hot_labels(rate, shape, weight, reduction):
    logits, targets = sample(shape)
    axis = 1 if len(shape) > 1 else 0
    p = torch.softmax(sample(shape, seed=1)[0], axis)
    settings = {"weight": weight, "reduction": reduction}
    expected = F.cross_entropy(logits, (1 - rate) * p + rate / 5, **settings)
    for form in forms_of(rate, targets):
        close(gls_loss(logits, p, form, ignore_index=None, **settings), expected)
    if rate >= 0:
        close(expected, F.cross_entropy(logits, p, label_smoothing=rate, **settings))
    if (
        reduction == "sum" or weight is None
    ):  # the mean over labels counts their weights, that over probabilities does not
        onehot = soft_targets(targets, 5, 0.0)
        close(gls_loss(logits, onehot, rate, **settings), gls_loss(logits, targets, rate, **settings))


def forms_of(rate, targets):
    """The ways to give one rate: a number, a tensor, and one per sample."""
    return [rate, torch.tensor(rate, dtype=torch.float64), torch.full(targets.shape, rate, dtype=torch.float64)]


@given(data=st.data())
def test_equals_torch_between_0_and_1_in_every_setting(data):
    classes = data.draw(st.integers(2, 7))
    outer = data.draw(st.lists(st.integers(1, 3), min_size=0, max_size=3))
    shape = (*outer[:1], classes, *outer[1:])
    rate = data.draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0, 1)))
    reduction = data.draw(st.sampled_from(["none", "mean", "sum"]))
    logits, targets = sample(shape, seed=data.draw(st.integers(0, 2**31)))
    ignore_index = data.draw(st.sampled_from([-100, 0, 1, 255]))
    if data.draw(st.booleans()):
        targets = torch.where(torch.rand(targets.shape) < 0.3, ignore_index, targets)
    weight = torch.rand(classes, dtype=torch.float64) + 0.1 if data.draw(st.booleans()) else None
    options = {"weight": weight, "ignore_index": ignore_index, "reduction": reduction}
    expected = F.cross_entropy(logits, targets, label_smoothing=rate, **options)
    for form in forms_of(rate, targets):
        close(gls_loss(logits, targets, form, **options), expected)
    close(
        gradient(lambda z: gls_loss(z, targets, rate, **options).sum(), logits),
        gradient(lambda z: F.cross_entropy(z, targets, label_smoothing=rate, **options).sum(), logits),
    )


def operations(function):
    """Run something, forward and backward; return its result and how many operators torch was asked for."""

    class Count(TorchDispatchMode):
        calls = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Count.calls += not func.is_view and func is not torch.ops.aten.detach.default
            return func(*args, **(kwargs or {}))

    with Count():
        result = function()
    return result, Count.calls


@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_saying_that_no_label_is_ignored_changes_no_number(data):
    shape = data.draw(st.sampled_from([*SHAPES, (0, 5)]))
    rate = data.draw(st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-8, 1)))
    logits, targets = sample(shape, seed=data.draw(st.integers(0, 2**31)))
    if data.draw(st.booleans()):
        targets = targets.to(torch.uint8)
    weight = torch.rand(5, dtype=torch.float64) + 0.1 if data.draw(st.booleans()) else None
    options = {"weight": weight, "reduction": data.draw(st.sampled_from(["none", "mean", "sum"]))}
    form = data.draw(st.sampled_from(forms_of(rate, targets)))

    def both(z):
        return [gls_loss(z, targets, form, **options, **more) for more in ({}, {"ignore_index": None})]

    gradients = [gradient(lambda z, i=i: both(z)[i].sum(), logits) for i in (0, 1)]
    for found, expected in (both(logits), gradients):
        torch.testing.assert_close(found, expected, atol=0, rtol=0, equal_nan=True)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_where_labels_cannot_be_read_saying_so_saves_operators(monkeypatch, reduction):
    monkeypatch.setattr("nls_tune.losses.gls._bounds", lambda tensor: None)  # as on CUDA
    logits, targets = sample()
    rate = torch.tensor(-0.4, dtype=torch.float64)
    (told, few), (untold, many) = (
        operations(lambda m=more: gradient(lambda z: gls_loss(z, targets, rate, reduction=reduction, **m), logits))
        for more in ({"ignore_index": None}, {})
    )
    torch.testing.assert_close(told, untold, atol=1e-12, rtol=1e-12)
    assert few <= many - 6, (few, many)


@pytest.mark.parametrize("rate", [-0.4, -8.0])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_weights_and_ignored_samples_at_negative_rates(rate, reduction, shape):
    logits, targets = sample(shape)
    targets[0] = 3
    weight = torch.tensor([0.2, 1.0, 0.0, 2.0, 0.7], dtype=torch.float64)
    # GLS is linear in the rate, so torch's two ends, 0 and 1, give every rate.
    ignoring = {"weight": weight, "ignore_index": 3, "reduction": reduction}
    ends = [F.cross_entropy(logits, targets, label_smoothing=end, **ignoring) for end in (0.0, 1.0)]
    expected = (1 - rate) * ends[0] + rate * ends[1]
    close(gls_loss(logits, targets, rate, **ignoring), expected)


def test_the_mean_over_no_samples_is_nan():
    logits, targets = sample()
    ignored = torch.full_like(targets, -100)
    for rate in (-0.4, torch.tensor(-0.4), 0.0, 0.4):
        assert gls_loss(logits, ignored, rate).isnan()
        assert gls_loss(logits, ignored, rate, reduction="sum") == 0
        assert gls_loss(logits[:0], targets[:0], rate).isnan()


def test_rates_of_each_sample():
    logits, targets = sample((4, 5, 3))
    per_sample = torch.tensor([-4.0, -0.4, 0.0, 1.0], dtype=torch.float64)
    per_label = torch.linspace(-2, 1, 12, dtype=torch.float64).reshape(4, 3)
    for rates, expanded in ((per_sample, per_sample[:, None].expand(4, 3)), (per_label, per_label)):
        losses = gls_loss(logits, targets, rates, reduction="none")
        for i, j in itertools.product(range(4), range(3)):
            close(losses[i, j], gls_loss(logits[i, :, j], targets[i, j], expanded[i, j].item()))
        torch.testing.assert_close(gls_loss(logits, targets, rates), losses.mean())


@pytest.mark.parametrize("rate", [0.3, -0.4, -8.0])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_first_and_second_derivatives(rate, reduction):
    logits, targets = sample((3, 4))
    logits.requires_grad_()
    rates = torch.full((3,), rate, dtype=torch.float64, requires_grad=True)

    for one_rate in (rate, rates, rates.detach()[0].clone().requires_grad_()):
        inputs = (logits, one_rate)
        assert torch.autograd.gradcheck(lambda z, r: gls_loss(z, targets, r, reduction=reduction), inputs)
        assert torch.autograd.gradgradcheck(lambda z, r: gls_loss(z, targets, r, reduction=reduction), inputs)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0], dtype=torch.float64)])
@pytest.mark.parametrize("shape", [(), (6,)])
def test_the_gradient_of_a_rate_of_0_is_that_of_finite_differences(shape, weight, masked):
    logits, targets = sample()
    if masked:  # the loss of this sample is infinite at every other rate
        logits[0, (targets[0] + 1) % 5] = -torch.inf
    rates = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    gls_loss(logits, targets, rates, weight=weight).backward()
    assert rates.grad.isfinite().all()
    if masked:
        return
    for i in range(rates.numel()):
        step = torch.zeros(rates.numel(), dtype=torch.float64)
        step[i] = 1e-3
        above, below = (gls_loss(logits, targets, s.reshape(shape), weight=weight) for s in (step, -step))
        torch.testing.assert_close(rates.grad.reshape(-1)[i], (above - below) / 2e-3)


@pytest.mark.parametrize("weight", [None, torch.tensor([1.0, 2.0, 0.5, 1.0, 1.0], dtype=torch.float64)])
def test_vmap_of_grad_gives_the_gradient_of_each_sample(weight):
    logits, targets = sample()
    rates = torch.tensor([-4.0, -1.0, -0.4, 0.0, 0.4, 1.0], dtype=torch.float64)
    per_sample = torch.func.vmap(torch.func.grad(lambda z, y, r: gls_loss(z, y, r, weight=weight)))
    for i, row in enumerate(per_sample(logits, targets, rates)):
        one = gradient(lambda z, i=i: gls_loss(z, targets[i], rates[i].item(), weight=weight), logits[i])
        close(row, one)
    shared = torch.func.vmap(lambda y: gls_loss(logits, y, -0.4, weight=weight))(targets.expand(3, -1))
    torch.testing.assert_close(shared, gls_loss(logits, targets, -0.4, weight=weight).expand(3))


@pytest.mark.slow
def test_compiles_whole_and_once_for_all_rates():
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()
    compiled = torch.compile(gls_loss, fullgraph=True, backend=counter)
    logits, targets = sample()
    compiled_graphs = []
    for rate in (-0.4, -4.0, 0.0, 0.4):
        rate = torch.tensor(rate, dtype=torch.float64)
        torch.testing.assert_close(compiled(logits, targets, rate), gls_loss(logits, targets, rate))
        torch.testing.assert_close(
            gradient(lambda z, r=rate: compiled(z, targets, r), logits),
            gradient(lambda z, r=rate: gls_loss(z, targets, r), logits),
        )
        compiled_graphs.append(counter.frame_count)
    assert len(set(compiled_graphs)) == 1, compiled_graphs
    torch.testing.assert_close(compiled(logits, targets, -0.4), gls_loss(logits, targets, -0.4))
    torch._dynamo.reset()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logits, targets = sample(dtype=dtype)
    expected = gls_loss(logits.float(), targets, -0.4)
    for rate in (-0.4, torch.tensor(-0.4), torch.tensor(-0.4, dtype=torch.bfloat16).double()):
        loss = gls_loss(logits, targets, rate)
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected, atol=5e-3, rtol=1e-3)
    assert gls_loss(logits, targets, -0.4) == expected
    logits.requires_grad_()
    gls_loss(logits, targets, -0.4).backward()
    assert logits.grad.dtype == dtype


def test_autocast_changes_nothing_after_the_model():
    logits, targets = sample(dtype=torch.float32)
    weight = torch.rand(5)
    model = torch.nn.Linear(5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = model(logits)
        losses = [gls_loss(outputs, targets, r, weight=w) for r in (-0.4, 0.0) for w in (None, weight)]
    assert outputs.dtype == torch.bfloat16
    expected = [gls_loss(outputs.float(), targets, r, weight=w) for r in (-0.4, 0.0) for w in (None, weight)]
    assert [loss.dtype for loss in losses] == [torch.float32] * 4
    assert losses == expected


@pytest.mark.parametrize("rate", [-0.4, 0.0, 0.4, torch.tensor(-0.4), torch.tensor(0.0)])
def test_nan_logits_pass_through(rate):
    logits, targets = sample()
    logits[0, 0] = torch.nan
    assert gls_loss(logits, targets, rate).isnan()
    assert gls_loss(logits, targets, rate, reduction="none").isnan().tolist() == [True] + 5 * [False]


@pytest.mark.parametrize("rate", [0.0, torch.tensor(0.0), torch.zeros(6)])
def test_masked_logits_at_rate_0_are_those_of_cross_entropy(rate):
    logits, targets = sample()
    logits[torch.arange(6), (targets + 1) % 5] = -torch.inf
    torch.testing.assert_close(gls_loss(logits, targets, rate), F.cross_entropy(logits, targets))
    torch.testing.assert_close(
        gradient(lambda z: gls_loss(z, targets, rate), logits),
        gradient(lambda z: F.cross_entropy(z, targets), logits),
    )


def test_large_logits_and_rates_stay_exact_in_float32():
    logits, targets = sample(dtype=torch.float32)
    for scale, rate in ((1e4, -8.0), (1e4, 0.8), (1.0, -1e3)):
        precise = gls_loss((logits * scale).double() + 1e3, targets, rate)
        torch.testing.assert_close(gls_loss(logits * scale + 1e3, targets, rate).double(), precise, rtol=1e-4, atol=0)


def test_the_module_is_the_function():
    logits, targets = sample()
    weight = torch.rand(5, dtype=torch.float64)
    module = GLSLoss(-0.4, weight=weight, ignore_index=1, reduction="sum")
    expected = gls_loss(logits, targets, -0.4, weight=weight, ignore_index=1, reduction="sum")
    assert module(logits, targets) == expected
    assert set(module.state_dict()) == set(torch.nn.CrossEntropyLoss(weight=weight).state_dict()) == {"weight"}
    assert repr(module) == "GLSLoss(smooth_rate=-0.4, ignore_index=1, reduction='sum')"


def test_the_module_moves_and_learns_tensor_rates():
    module = GLSLoss(torch.tensor(-0.4))
    assert not module.state_dict()
    assert module.double().smooth_rate.dtype == torch.float64
    assert "smooth_rate=-0.4" in repr(module)
    assert "shape (6,)" in repr(GLSLoss(torch.zeros(6)))
    learned = GLSLoss(torch.nn.Parameter(torch.tensor(-0.4)))
    assert [name for name, _ in learned.named_parameters()] == ["smooth_rate"]
    learned(*sample()).backward()
    assert learned.smooth_rate.grad is not None


@pytest.mark.parametrize(
    ("rate", "error", "message"),
    [
        (1.01, ValueError, "at most 1, got 1.01; use 1 or less"),
        (float("nan"), ValueError, "finite and at most 1, got nan"),
        (float("-inf"), ValueError, "got -inf"),
        (torch.tensor(1.5), ValueError, "values from 1.5 to 1.5"),
        (torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, torch.nan]), ValueError, "nan"),
        (torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, -torch.inf]), ValueError, "-inf"),
        (torch.zeros(5), ValueError, r"one rate per sample, shape \(6,\), got shape \(5,\)"),
        (torch.zeros(6, 1), ValueError, "one rate per sample"),
        (torch.tensor(-1), TypeError, r"floating point, got a torch.int64 tensor; use rate.float\(\)"),
        ("-0.4", TypeError, "must be a number or a torch tensor, got str"),
        (None, TypeError, "got NoneType"),
        (True, TypeError, "got bool"),
    ],
)
def test_refuses_rates(rate, error, message):
    with pytest.raises(error, match=message) as raised:
        gls_loss(*sample(), rate)
    assert "\n" not in str(raised.value)
    if "per sample" not in message:  # the module does not know the samples yet
        with pytest.raises(error, match=message):
            GLSLoss(rate)


@pytest.mark.parametrize("rate", [0.0, -0.4, torch.tensor(-0.4)])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"targets": torch.zeros(6)}, TypeError, r"or class probabilities of .* \(6, 5\), got torch.float32 of shape"),
        (
            {"targets": torch.zeros(6, 4)},
            TypeError,
            r"of the shape of logits \(6, 5\), got torch.float32 of shape \(6, 4\)",
        ),
        ({"targets": torch.zeros(6, dtype=torch.int32)}, TypeError, r"got torch.int32; .*targets.long\(\)"),
        ({"targets": torch.zeros(6, dtype=torch.bool)}, TypeError, "got torch.bool"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, ValueError, r"without the class axis, \(6,\), got \(5,\)"),
        ({"targets": torch.zeros(6, 1, dtype=torch.int64)}, ValueError, r"got \(6, 1\)"),
        ({"targets": torch.tensor([0, 1, 2, 3, 4, 5])}, ValueError, r"0 to 4 or ignore_index \(-100\), got 5"),
        ({"targets": torch.tensor([0, 1, 2, 3, 4, -1])}, ValueError, "got -1"),
        ({"targets": torch.tensor([-100, 1, 2, 3, 4, 7])}, ValueError, "got 7"),
        ({"logits": torch.zeros(6, 5, dtype=torch.int64)}, TypeError, "logits must be floating point"),
        ({"logits": torch.tensor(0.0)}, ValueError, r"class axis.*got shape \(\)"),
        ({"weight": [1, 1, 1, 1, 1]}, TypeError, r"weight must be a tensor, got \[1, 1, 1, 1, 1\]"),
        ({"weight": torch.ones(4)}, ValueError, r"shape \(5,\), got \(4,\)"),
        ({"weight": torch.ones(5, dtype=torch.int64)}, TypeError, "weight must be floating point"),
        ({"reduction": "average"}, ValueError, "one of none, mean, sum, got 'average'"),
    ],
)
def test_refuses_arguments(rate, change, error, message):
    logits, targets = sample()
    arguments = {"logits": logits, "targets": targets, "smooth_rate": rate} | change
    with pytest.raises(error, match=message) as raised:
        gls_loss(**arguments)
    assert "\n" not in str(raised.value)
    if "reduction" in change:
        with pytest.raises(error, match=message):
            GLSLoss(rate, **change)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_it_is_the_same_and_never_waits_for_the_device():
    logits, targets = sample()
    targets[0] = -100
    device_logits, device_targets = logits.cuda(), targets.cuda()
    rates = torch.full((6,), -0.4, dtype=torch.float64)
    device_rates = rates.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        results = [gls_loss(device_logits, device_targets, r) for r in (-0.4, device_rates, device_rates[0])]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for result in results:
        close(result.cpu(), gls_loss(logits, targets, -0.4))
