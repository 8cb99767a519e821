"""Noise counted among the surest samples: what it recovers, where models err, and when it says that it cannot tell."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nls_tune.errors import InputError
from nls_tune.noise import apply_transition, pairflip_matrix, symmetric_matrix
from nls_tune.noise.anchors import bracket, estimate_from_anchors
from nls_tune.noise.confident_learning import estimate_transition


def model_of(clean: np.ndarray, num_classes: int, sharpness: float, seed: int) -> np.ndarray:
    """Probabilities of a model whose logits are normal, and for the clean class ``sharpness`` times a normal more."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(clean), num_classes))
    logits[np.arange(len(clean)), clean] += sharpness * np.abs(rng.normal(size=len(clean)))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


@settings(max_examples=settings.default.max_examples // 4)
@given(num_classes=st.integers(2, 10), noise=st.floats(0, 0.45), tilt=st.floats(0, 1), seed=st.integers(0, 2**32 - 1))
def test_a_good_model_gives_rate_and_matrix_back(num_classes, noise, tilt, seed):
    mixed = (1 - tilt) * symmetric_matrix(num_classes, noise) + tilt * pairflip_matrix(num_classes, noise)
    clean = np.random.default_rng(seed).integers(num_classes, size=20_000)
    noisy = apply_transition(clean, mixed, seed)
    found = estimate_from_anchors(np.eye(num_classes)[clean], noisy)
    assert found.noise_rate == pytest.approx(noise, abs=5 * found.error)
    np.testing.assert_allclose(found.matrix, mixed, atol=5 * np.sqrt(0.25 / 80))


@pytest.mark.parametrize("noise", [0.0, 0.2, 0.4])
def test_errors_of_a_weak_model_do_not_look_like_noise(noise):
    clean = np.random.default_rng(1).integers(10, size=50_000)
    noisy = apply_transition(clean, symmetric_matrix(10, noise), 2)
    probabilities = model_of(clean, 10, 4.0, 3)
    assert (probabilities.argmax(axis=1) == clean).mean() < 0.75
    found = estimate_from_anchors(probabilities, noisy)
    assert found.noise_rate == pytest.approx(noise, abs=0.03)
    assert not found.is_weak
    confident = estimate_transition(probabilities, noisy, num_resamples=2).noise_rate
    assert abs(confident - noise) > 2 * abs(found.noise_rate - noise)


def test_a_model_that_errs_where_it_is_surest_is_weak():
    clean = np.random.default_rng(1).integers(10, size=50_000)
    assert estimate_from_anchors(model_of(clean, 10, 1.0, 3), clean).is_weak


@pytest.mark.parametrize(("beyond", "weak"), [(-0.1, False), (0.04, False), (0.06, True)])
def test_the_bracket_ends_where_confident_learning_does_and_a_wide_one_says_nothing(beyond, weak):
    clean = np.random.default_rng(1).integers(4, size=20_000)
    noisy = apply_transition(clean, symmetric_matrix(4, 0.1), 2)
    anchors = estimate_from_anchors(np.eye(4)[clean], noisy)
    upper = anchors.noise_rate + 1.96 * anchors.error + beyond
    confident = dataclasses.replace(estimate_transition(np.eye(4)[clean], noisy, num_resamples=2), high=upper)
    found = bracket(anchors, confident)
    assert found.is_weak == weak
    assert found.low == pytest.approx(anchors.noise_rate - 1.96 * anchors.error)
    assert found.high == pytest.approx(max(upper, anchors.noise_rate + 1.96 * anchors.error))


def test_noise_that_lies_on_hard_samples_is_called_unknown():
    """Half of the samples are easy and have 20 % noise; on the others, which have 60 %, the model errs as often."""
    rng = np.random.default_rng(1)
    clean, hard = rng.integers(10, size=50_000), rng.random(50_000) < 0.5
    noisy = np.where(rng.random(50_000) < np.where(hard, 0.6, 0.2), (clean + rng.integers(1, 10, 50_000)) % 10, clean)
    predicted = np.where(hard & (rng.random(50_000) < 0.6), rng.integers(10, size=50_000), clean)
    probabilities = np.full((50_000, 10), 0.05)
    probabilities[np.arange(50_000), predicted] = np.where(hard, 0.8, 0.9)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    anchors, confident = estimate_from_anchors(probabilities, noisy), estimate_transition(probabilities, noisy)
    found = bracket(anchors, confident)
    assert anchors.noise_rate == pytest.approx(0.2, abs=0.05)
    assert found.is_weak
    assert found.low < 0.4 < found.high


def test_it_is_the_count_of_other_labels_among_the_surest():
    """Two classes of 10,000: of the first, the surest 200 hold 20 wrong labels, the surest 500 hold 80."""
    confidence = np.linspace(0.99, 0.6, 10_000)
    first, second = np.column_stack([confidence, 1 - confidence]), np.column_stack([1 - confidence, confidence])
    labels = np.repeat([0, 1], 10_000)
    labels[:20] = 1
    labels[300:360] = 1
    found = estimate_from_anchors(np.concatenate([first, second]), labels)
    assert (found.noise_rate, found.wider_rate) == (0.05, 0.08)
    likely = np.array([20.5, 0.5]) / 201
    assert found.error == pytest.approx(np.sqrt((0.25 * likely * (1 - likely) / 200).sum()))
    np.testing.assert_allclose(found.matrix, [[0.84, 0.16], [0.0, 1.0]])


def test_a_label_that_no_anchor_has_keeps_some_probability():
    """Without it the corrected loss of a sample with this label would be infinite."""
    probabilities = np.eye(3)[np.repeat([0, 1, 2], [500, 500, 4])]
    labels = np.repeat([0, 1, 0], [500, 500, 4])
    found = estimate_from_anchors(probabilities, labels)
    np.testing.assert_allclose(found.matrix[2], [0.8, 0, 0.2])
    np.testing.assert_allclose(found.matrix.sum(axis=1), 1)


def test_little_data_is_counted_whole():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.3, 0.7]])
    found = estimate_from_anchors(probabilities, [0, 1, 1])
    assert found.noise_rate == found.wider_rate == pytest.approx(1 / 3)
    assert found.is_weak  # that both sets agree says nothing: they are the same


def test_classes_that_no_sample_is_predicted_as_count_for_nothing():
    found = estimate_from_anchors(np.tile([0.6, 0.3, 0.1], (600, 1)), np.zeros(600, dtype=int))
    assert found.noise_rate == 0.0 < found.error
    np.testing.assert_array_equal(found.matrix, np.eye(3))


def test_what_is_no_probability_is_refused():
    with pytest.raises(InputError, match="must be finite and from 0 to 1"):
        estimate_from_anchors(np.array([[2.0, -1.0]]), [0])
