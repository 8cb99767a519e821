"""Tests of the noise models: their rates, their exactness, and what cancels them."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from nls_tune import noise
from nls_tune.errors import InputError
from nls_tune.noise import corrupt_labels, corruption, parse_noise_level

CIFAR10_MAP = {9: 1, 2: 0, 4: 7, 3: 5, 5: 3}
RATE_KINDS = ("symmetric", "pairflip", "asymmetric", "instance")


def clean_labels(count=20_000, classes=10):
    return np.arange(count) % classes


def image_features(count, size=12):
    return np.random.Generator(np.random.PCG64(7)).integers(0, 256, (count, size), dtype=np.uint8)


def corrupt(level, labels, classes=10, seed=0):
    return corrupt_labels(
        parse_noise_level(level),
        labels,
        num_classes=classes,
        noise_seed=seed,
        features=image_features(len(labels)),
        class_map=CIFAR10_MAP if classes == 10 else {0: 1},
        human_labels={"worst": (labels + 1) % classes},
    )


def digest(labels):
    return hashlib.sha256(labels.astype("<i8").tobytes()).hexdigest()


class TestRates:
    @settings(max_examples=settings.default.max_examples // 2)
    @given(
        kind=st.sampled_from(RATE_KINDS),
        classes=st.sampled_from([2, 3, 10, 50]),
        rate=st.floats(0.01, 0.99),
        seed=st.integers(0, 2**63),
    )
    def test_realised_rate(self, kind, classes, rate, seed):
        labels = clean_labels(6_000, classes)
        noisy = corrupt(f"{kind}:{rate!r}", labels, classes, seed)
        affected = np.isin(labels, list(CIFAR10_MAP) if classes == 10 else [0]) | (kind != "asymmetric")
        count = affected.sum()
        # 5 standard errors, because Hypothesis looks for the worst of many draws.
        assert abs((noisy != labels).sum() / count - rate) < 5 * math.sqrt(rate * (1 - rate) / count) + 1e-9
        assert noisy.min() >= 0
        assert noisy.max() < classes
        np.testing.assert_array_equal(noisy[~affected], labels[~affected])

    @pytest.mark.parametrize("kind", RATE_KINDS)
    @pytest.mark.parametrize("classes", [2, 10, 100])
    def test_0_and_1_are_exact(self, kind, classes):
        labels = clean_labels(5_000, classes)
        before = labels.copy()
        np.testing.assert_array_equal(corrupt(f"{kind}:0", labels, classes), labels)
        flipped = corrupt(f"{kind}:1", labels, classes) != labels
        mapped = list(CIFAR10_MAP) if classes == 10 else [0]
        np.testing.assert_array_equal(flipped, np.isin(labels, mapped) | (kind != "asymmetric"))
        np.testing.assert_array_equal(labels, before)

    @pytest.mark.parametrize("classes", [3, 10])
    def test_symmetric_is_uniform_over_the_other_classes(self, classes):
        labels = clean_labels(50_000, classes)
        noisy = corrupt("symmetric:0.6", labels, classes)
        steps = np.bincount((noisy - labels) % classes, minlength=classes)[1:]
        assert stats.chisquare(steps).pvalue > 1e-3

    def test_an_entry_of_probability_0_is_never_drawn_whatever_the_rounding(self):
        matrix = np.array([[0.0, 1 / 3, 1 / 3, 1 / 3, 0.0], [0.1] * 3 + [0.7 - 5e-7, 0.0]] + [[1, 0, 0, 0, 0]] * 3)
        uniforms = np.array([0.0, 0.5, np.nextafter(1.0, 0.0)])
        for row in matrix:
            cumulative = row.cumsum()
            thresholds = corruption._thresholds(uniforms, cumulative[-1])
            drawn = np.searchsorted(cumulative, thresholds, side="right")
            assert (row[drawn] > 0).all()
        noisy = noise.apply_transition(np.zeros(100_000, dtype=np.int64), matrix, 0)
        assert set(noisy.tolist()) == {1, 2, 3}


class TestInstance:
    def test_the_noise_depends_on_the_features(self):
        features = np.repeat(image_features(200, 30), 50, axis=0)
        labels = np.repeat(np.arange(200) % 10, 50)
        noisy = noise.instance_dependent(features, labels, 0.5, 10, 0)
        targets = [set(noisy[i : i + 50][noisy[i : i + 50] != labels[i]].tolist()) for i in range(0, 10_000, 50)]
        assert np.mean([len(found) for found in targets]) < 5  # symmetric noise would reach all nine
        assert len(set.union(*targets)) == 10

    def test_flip_rates_are_the_truncated_normal(self):
        uniforms = (np.arange(2_000) + 0.5) / 2_000
        expected = stats.truncnorm(-5, 5, 0.5, 0.1).ppf(uniforms)
        np.testing.assert_allclose(corruption._truncated_normal(0.5, uniforms), expected, atol=1e-6)
        for mean in (1e-9, 1e-4, 0.01, 0.05, 0.3, 0.95, 1 - 1e-6):
            rates = corruption._truncated_normal(mean, uniforms)
            assert 0 <= rates.min() <= rates.max() <= 1
            assert abs(rates.mean() - mean) < 1e-4
        # Near the edge it is the truncated normal too: the one whose location gives this mean.
        location = stats.truncnorm(0, 10, 0.0, 0.1)
        found = corruption._truncated_normal(location.mean(), uniforms)
        np.testing.assert_allclose(found, location.ppf(uniforms), atol=1e-6)

    def test_type_and_shape_of_the_features_do_not_matter(self):
        labels = clean_labels(1_000)
        features = image_features(1_000)
        expected = noise.instance_dependent(features, labels, 0.4, 10, 0)
        for same in (features.astype(np.int64), features.reshape(1_000, 3, 2, 2)):
            np.testing.assert_array_equal(noise.instance_dependent(same, labels, 0.4, 10, 0), expected)

    def test_the_mean_of_the_features_decides_as_it_does_for_the_authors(self):
        """Images alike in most pixels flip to few classes; without their mean they would flip to many."""
        labels, features = clean_labels(5_000), 200.0 + image_features(5_000) / 255
        matrix = noise.transition_matrix(labels, noise.instance_dependent(features, labels, 0.4, 10, 0))
        np.fill_diagonal(matrix, 0)
        assert (matrix.max(axis=1) / matrix.sum(axis=1)).mean() > 0.9
        spread = noise.transition_matrix(labels, noise.instance_dependent(features - 200.5, labels, 0.4, 10, 0))
        np.fill_diagonal(spread, 0)
        assert (spread.max(axis=1) / spread.sum(axis=1)).mean() < 0.5

    @pytest.mark.parametrize(
        ("features", "message"),
        [
            (np.zeros((9, 2)), r"shape \(10, ...\), one row per label, got float64 of shape \(9, 2\)"),
            (np.zeros(10), r"got float64 of shape \(10,\)"),
            (np.full((10, 2), "a"), "features must be numbers"),
            (np.full((10, 2), np.nan), "must be finite"),
            (np.full((10, 2), np.inf), "must be finite"),
        ],
    )
    def test_refuses_features(self, features, message):
        with pytest.raises(InputError, match=message):
            noise.instance_dependent(features, clean_labels(10), 0.4, 10, 0)


class TestCorrupt:
    # Labels are part of what a trial is: if one of these changes, every stored result loses its meaning.
    GOLDEN = {  # noqa: RUF012
        "clean": "48d82858561f3ebc6b7196768009aedcfde6976e13a3dff7b9d5778037d1b945",
        "symmetric:0.4": "495fe08ca401fb303127727fffb76d3c0b8210c1519ce288291a7dad594e1259",
        "symmetric:1": "145db30a6cfc96fbff1dd33c5963e88353b293939b5315fd88785b5bc09be8ad",
        "pairflip:0.3": "cde2bcf918c2e088146444bc20e8c4b3f53999462db1356ee8b8216580d17150",
        "asymmetric:0.3": "2fb76153d97c1b5da4eaa20afa6ff8464bf8bfb6ccad26900e2de9b2873332c2",
        "instance:0.4": "facf1173b0667f6ff869b73e6301d55d57d9200e155cfcb683a573787b3530c1",
        "instance:1": "f3ffc5d5cdf93384e429d3c38204ebc5476b74c542c955d3b9f2ba9d0b1d4d62",
        "human:worst": "4226143a40fcb173aaa24840bfefc3cc53cc160a936817228470af12af3c03d6",
    }

    @pytest.mark.parametrize("level", GOLDEN)
    def test_golden_labels(self, level):
        np.random.seed(0)  # nothing but noise_seed counts
        assert digest(corrupt(level, clean_labels(5_000), seed=3)) == self.GOLDEN[level]
        other = digest(corrupt(level, clean_labels(5_000), seed=4))
        assert (other == self.GOLDEN[level]) == (level in ("clean", "human:worst"))

    @pytest.mark.parametrize("level", ["clean", "human:worst", "symmetric:0", "instance:0", "matrix"])
    def test_returns_a_copy_of_int64(self, level, tmp_path):
        if level == "matrix":
            np.save(tmp_path / "m.npy", np.eye(10))
            level = f"matrix:{tmp_path / 'm.npy'}"
        labels, level = clean_labels(100), parse_noise_level(level)
        given = {"human_labels": {"worst": labels}, "features": image_features(100)}
        noisy = corrupt_labels(level, labels, num_classes=10, noise_seed=0, **given)
        assert noisy.dtype == np.int64
        assert not np.shares_memory(noisy, labels)
        np.testing.assert_array_equal(noisy, labels)

    def test_lists_and_small_dtypes_are_labels_too(self):
        for labels in ([0, 1, 2], np.array([0, 1, 2], dtype=np.uint8), []):
            noisy = corrupt_labels(parse_noise_level("pairflip:1"), labels, num_classes=10, noise_seed=0)
            assert (noisy.dtype, noisy.tolist()) == (np.int64, [label + 1 for label in labels])

    @pytest.mark.parametrize(
        ("level", "message"),
        [
            ("given", "needs given labels, and this dataset has none"),
            ("asymmetric:0.3", "'asymmetric:0.3' needs a class map"),
            ("human:worst", "needs these human labels"),
            ("human:random1", "same samples, got 10 and 2"),
            ("human:random2", "labels of 'human:random2' must be from 0 to 9, got 10"),
            ("instance:0.3", "needs features, and this dataset has none; use for example 'symmetric:0.4'"),
        ],
    )
    def test_says_what_the_dataset_lacks_and_what_does_not_fit(self, level, message):
        human = {"random1": [0, 1], "random2": [0, 10] * 5}
        with pytest.raises(InputError, match=message):
            corrupt_labels(parse_noise_level(level), clean_labels(10), num_classes=10, noise_seed=0, human_labels=human)

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([0, 10], "labels must be from 0 to 9, got 10"),
            ([0, -1], "got -1"),
            ([0.0, 1.0], "must be integers of shape"),
            ([[0, 1]], r"got int64 of shape \(1, 2\)"),
        ],
    )
    @pytest.mark.parametrize("level", ["clean", "symmetric:0.4", "instance:0.4"])
    def test_refuses_labels(self, labels, message, level):
        with pytest.raises(InputError, match=message):
            corrupt_labels(parse_noise_level(level), labels, num_classes=10, noise_seed=0, features=np.zeros((2, 1)))

    def test_refuses_seeds_and_matrices(self):
        for seed in (-1, 0.5, None, True):
            with pytest.raises(InputError, match="noise_seed must be an integer of at least 0"):
                corrupt("symmetric:0.4", clean_labels(10), seed=seed)
        for matrix in (np.ones((2, 3)), np.ones(3), 1.0, np.zeros((0, 0)), np.ones((2, 2))):
            with pytest.raises(InputError, match="the transition matrix must"):
                noise.apply_transition([0], matrix, 0)


class TestStatistics:
    def test_shares_are_counted(self):
        assert noise.noise_rate([0, 1, 2, 3], [0, 1, 2, 0]) == 0.25
        matrix = noise.transition_matrix([0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0], num_classes=3)
        np.testing.assert_array_equal(matrix, [[0.75, 0.25, 0], [0.5, 0.5, 0], [0, 0, 1]])
        assert noise.transition_matrix([0, 1], [1, 2]).shape == (3, 3)

    @pytest.mark.parametrize("level", ["symmetric:0.4", "pairflip:0.3", "asymmetric:0.3"])
    def test_transition_matrix_finds_the_one_that_made_the_labels(self, level):
        kind, _, rate = level.partition(":")
        more = [CIFAR10_MAP] if kind == "asymmetric" else []
        truth = getattr(noise, f"{kind}_matrix")(10, float(rate), *more)
        labels = clean_labels(50_000)
        found = noise.transition_matrix(labels, corrupt(level, labels), 10)
        np.testing.assert_allclose(found, truth, atol=4.5 * math.sqrt(0.25 / 5_000))
        np.testing.assert_allclose(found.sum(1), 1)

    def test_refuse_what_cannot_be_compared(self):
        for function in (noise.noise_rate, noise.transition_matrix):
            with pytest.raises(InputError, match="same samples, got 2 and 1"):
                function([0, 1], [0])
            with pytest.raises(InputError, match="of no labels"):
                function([], [])
            with pytest.raises(InputError, match="clean must not be negative, got -1"):
                function([-1], [0])
        with pytest.raises(InputError, match="noisy must be from 0 to 1, got 2"):
            noise.transition_matrix([0], [2], 2)
        np.testing.assert_array_equal(noise.transition_matrix([], [], 2), np.eye(2))


class TestCancelling:
    @given(classes=st.integers(2, 1000), share=st.floats(0.001, 1))
    def test_the_expected_target_is_the_clean_one(self, classes, share):
        rate_of_noise = (1 - share) * (classes - 1) / classes
        smooth_rate = noise.noise_cancelling_rate(rate_of_noise, classes)
        # The noisy label's distribution for a clean label 0, then the GLS target averaged over it.
        noisy = np.full(classes, rate_of_noise / (classes - 1))
        noisy[0] = 1 - rate_of_noise
        target = (1 - smooth_rate) * noisy + smooth_rate / classes
        np.testing.assert_allclose(target, np.eye(1, classes)[0], atol=1e-9)
        assert smooth_rate <= 0

    def test_known_values(self):
        assert noise.noise_cancelling_rate(0.4, 2) == pytest.approx(-4)
        assert noise.signal_share(0.4, 2) == pytest.approx(0.2)
        assert noise.signal_share(0.9, 10) == pytest.approx(0)
        assert noise.signal_share(1, 2) == -1
        for nothing in (0, 0.0, -0.0):
            assert math.copysign(1, noise.noise_cancelling_rate(nothing, 10)) == 1
            assert noise.noise_cancelling_rate(nothing, 10) == 0

    @pytest.mark.parametrize("classes", [2, 3, 49, 1000])
    def test_does_not_exist_without_signal(self, classes):
        for rate in ((classes - 1) / classes, 1.0):
            with pytest.raises(ValueError, match="exists only for noise below"):
                noise.noise_cancelling_rate(rate, classes)

    @pytest.mark.parametrize("function", [noise.noise_cancelling_rate, noise.signal_share])
    def test_refuses_arguments(self, function):
        for rate in (-0.1, 1.1, math.nan, math.inf):
            with pytest.raises(ValueError, match="a noise rate must be from 0 to 1"):
                function(rate, 10)
        with pytest.raises(ValueError, match="at least 2 classes"):
            function(0.1, 1)
