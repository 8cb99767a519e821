"""Confident learning: what it recovers, and what it must not depend on."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nls_tune.errors import InputError
from nls_tune.noise import apply_transition, pairflip_matrix, symmetric_matrix
from nls_tune.noise import noise_rate as share_of_wrong_labels
from nls_tune.noise.confident_learning import NoiseEstimate, as_tuples, estimate_transition


def noisy_posterior(num_samples: int, matrix: np.ndarray, seed: int = 0):
    """Clean labels, noisy labels, and the probabilities of a model that knows the noise perfectly."""
    clean = np.random.default_rng(seed).integers(len(matrix), size=num_samples)
    return clean, apply_transition(clean, matrix, seed), matrix[clean]


def random_probabilities(num_samples: int, num_classes: int, seed: int):
    rng = np.random.default_rng(seed)
    return rng.dirichlet(np.ones(num_classes), size=num_samples), rng.integers(num_classes, size=num_samples)


class TestRecovery:
    @settings(max_examples=settings.default.max_examples // 4)
    @given(
        num_classes=st.integers(2, 10), noise=st.floats(0, 0.45), tilt=st.floats(0, 1), seed=st.integers(0, 2**32 - 1)
    )
    def test_perfect_probabilities_give_the_matrix_back(self, num_classes, noise, tilt, seed):
        """A mixture of symmetric and pairwise noise, whose diagonal is the largest of its row and its column."""
        mixed = (1 - tilt) * symmetric_matrix(num_classes, noise) + tilt * pairflip_matrix(num_classes, noise)
        clean, noisy, probabilities = noisy_posterior(1_000 * num_classes, mixed, seed)
        found = estimate_transition(probabilities, noisy, num_resamples=20)
        error = 5 * np.sqrt(0.25 / np.bincount(clean).min())
        np.testing.assert_allclose(found.matrix, mixed, atol=error)
        # The latent classes are the clean ones, so that not even sampling makes a difference.
        assert found.noise_rate == pytest.approx(share_of_wrong_labels(clean, noisy))
        np.testing.assert_allclose(found.prior, np.bincount(clean) / len(clean))

    def test_one_temperature_for_all_samples_does_little(self):
        _, noisy, probabilities = noisy_posterior(5_000, symmetric_matrix(10, 0.4))
        found = [estimate_transition(probabilities, noisy, num_resamples=2).noise_rate]
        for power in (0.5, 3.0):
            scaled = probabilities**power
            scaled /= scaled.sum(axis=1, keepdims=True)
            found.append(estimate_transition(scaled, noisy, num_resamples=2).noise_rate)
        assert found == pytest.approx([found[0]] * 3)

    def test_errors_of_the_model_look_like_noise(self):
        clean = np.repeat(np.arange(4), 250)
        probabilities = np.full((1_000, 4), 0.05)
        predicted = np.where(np.arange(1_000) % 10 == 0, (clean + 1) % 4, clean)
        probabilities[np.arange(1_000), predicted] = 0.85
        assert estimate_transition(probabilities, clean, num_resamples=2).noise_rate == pytest.approx(0.1)

    def test_the_interval_covers_as_often_as_it_says(self):
        noise, inside = 0.3, 0
        for seed in range(40):
            _, noisy, probabilities = noisy_posterior(400, symmetric_matrix(4, noise), seed)
            found = estimate_transition(probabilities, noisy, seed=seed, num_resamples=100)
            inside += found.low <= noise <= found.high
        assert inside >= 34  # 38 expected; P(fewer than 34) is about 1 %


class TestProperties:
    @settings(max_examples=settings.default.max_examples // 4)
    @given(
        num_samples=st.integers(1, 80),
        num_classes=st.integers(2, 10),
        seed=st.integers(0, 2**32 - 1),
        sharpness=st.sampled_from([0.05, 1.0, 20.0]),
    )
    def test_whatever_comes_in_a_distribution_comes_out(self, num_samples, num_classes, seed, sharpness):
        rng = np.random.default_rng(seed)
        probabilities = rng.dirichlet(np.full(num_classes, sharpness), size=num_samples).astype(np.float32)
        noisy = rng.integers(rng.integers(1, num_classes + 1), size=num_samples)  # often with empty classes
        found = estimate_transition(probabilities, noisy, seed=seed, num_resamples=20)
        np.testing.assert_allclose(found.matrix.sum(axis=1), 1)
        assert found.matrix.min() >= 0
        assert found.joint.sum() == pytest.approx(1)
        np.testing.assert_allclose(
            found.joint.sum(axis=0), np.bincount(noisy, minlength=num_classes) / num_samples, atol=1e-12
        )
        np.testing.assert_allclose(found.joint.sum(axis=1), found.prior)
        assert 0 <= found.low <= found.noise_rate <= found.high <= 1

    @settings(max_examples=settings.default.max_examples // 4)
    @given(num_classes=st.integers(2, 8), seed=st.integers(0, 2**32 - 1))
    def test_names_of_classes_do_not_matter(self, num_classes, seed):
        probabilities, noisy = random_probabilities(60, num_classes, seed)
        names = np.random.default_rng(seed).permutation(num_classes)
        first = estimate_transition(probabilities, noisy, num_resamples=20)
        second = estimate_transition(probabilities[:, np.argsort(names)], names[noisy], num_resamples=20)
        assert (second.low, second.noise_rate, second.high) == pytest.approx((first.low, first.noise_rate, first.high))
        np.testing.assert_allclose(second.matrix[np.ix_(names, names)], first.matrix)

    def test_a_class_without_samples_keeps_its_labels_and_a_label_that_nobody_trusts_counts_as_right(self):
        found = estimate_transition(np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]), [0, 1])
        np.testing.assert_array_equal(found.matrix, np.eye(3))
        assert found.prior.tolist() == [0.5, 0.5, 0]
        assert (found.noise_rate, found.low, found.high) == (0, 0, 0)
        probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.95, 0.05]])
        found = estimate_transition(probabilities, [0, 0, 1, 1])
        assert found.joint.tolist() == [[0.5, 0.25], [0.0, 0.25]]

    def test_the_seed_decides_the_interval_alone(self):
        probabilities, noisy = random_probabilities(300, 3, 1)
        first, same, other = (estimate_transition(probabilities, noisy, seed=seed) for seed in (0, 0, 1))
        assert (first.low, first.high) == (same.low, same.high) != (other.low, other.high)
        assert first.noise_rate == other.noise_rate

    def test_the_shortcut_of_the_bootstrap_is_one(self):
        """Every resample alone, from the beginning, gives the same noise rates."""
        probabilities, noisy = random_probabilities(200, 4, 2)
        found = estimate_transition(probabilities, noisy, seed=5, num_resamples=30)
        generator = np.random.Generator(np.random.PCG64(5))
        rates = []
        for _ in range(30):
            draw = generator.integers(200, size=200)
            rates.append(estimate_transition(probabilities[draw], noisy[draw], num_resamples=1).noise_rate)
        assert (found.low, found.high) == pytest.approx(tuple(np.percentile(rates, (2.5, 97.5))))


@pytest.mark.parametrize(
    ("probabilities", "labels", "message"),
    [
        (np.ones(3), [0, 1, 0], "floats of shape"),
        (np.ones((3, 1)), [0, 0, 0], "K at least 2"),
        (np.empty((0, 2)), [], "N at least 1"),
        (np.ones((2, 2), dtype=int), [0, 1], "got int64"),
        (np.full((2, 2), 0.5), [0], r"shape \(2,\)"),
        (np.full((2, 2), 0.5), [0.0, 1.0], "got float64"),
        (np.full((2, 2), 0.5), [0, 2], "from 0 to 1, got 2"),
        (np.full((2, 2), 0.5), [-1, 0], "got -1"),
        (np.full((2, 2), np.nan), [0, 1], "apply softmax"),
        (np.full((2, 2), 3.0), [0, 1], "from 0 to 1"),
    ],
)
def test_what_is_not_a_probability_is_refused(probabilities, labels, message):
    with pytest.raises(InputError, match=message):
        estimate_transition(probabilities, labels)


def test_an_estimate_survives_json():
    estimate = NoiseEstimate(
        dataset="twonorm", noise_level="symmetric:0.4", num_classes=2, num_samples=10, noise_rate=0.1 + 0.2, low=0.1,
        high=0.5, matrix=as_tuples([[2 / 3, 1 / 3], [0, 1]]), noise_cancelling_rate=-4.0, accuracy=0.6,
        true_noise_rate=0.4, true_matrix=as_tuples(np.eye(2)), model="mlp", folds=2, best_epochs=(1, 2), seconds=1.5,
    )  # fmt: skip
    for one in (estimate, replace(estimate, noise_cancelling_rate=None, true_noise_rate=None, true_matrix=None)):
        assert NoiseEstimate.from_json(json.loads(json.dumps(asdict(one)))) == one
    assert estimate.matrix[0] == (0.666667, 0.333333)
