import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nls_tune.analysis.statistics import (
    detectable_difference,
    holm,
    paired_t_p,
    sample_mean,
    sign_flip_p,
    smallest_sign_flip_p,
)

# Rounded: where a value is lost in the rounding of a sum, two implementations may see a tie or none.
differences = st.lists(st.floats(-0.2, 0.2).map(lambda x: round(x, 6)), min_size=2, max_size=8)


@given(differences.filter(lambda v: np.ptp(v) > 1e-5))
def test_the_interval_and_the_paired_t_test_are_scipys(values):
    assert paired_t_p(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, rel=1e-6, abs=1e-12)
    found = sample_mean(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.standard_deviation == pytest.approx(np.std(values, ddof=1))


def test_one_seed_says_nothing_about_the_spread():
    found = sample_mean([0.9])
    assert (found.mean, found.low, found.high) == (0.9, -math.inf, math.inf)
    assert math.isnan(found.standard_deviation)
    with pytest.raises(ValueError, match="at least one"):
        sample_mean([])


@given(differences)
def test_sign_flip_is_scipys_exact_permutation_test(values):
    expected = stats.permutation_test(
        (np.array(values),), lambda x: abs(np.sum(x)), permutation_type="samples", n_resamples=np.inf,
        alternative="greater", vectorized=False,
    ).pvalue  # fmt: skip
    assert sign_flip_p(values) == pytest.approx(expected, abs=1e-9)


@given(st.integers(1, 10))
def test_smallest_p_is_reached_by_equal_signs(n):
    assert sign_flip_p([0.01 * (i + 1) for i in range(n)]) == pytest.approx(smallest_sign_flip_p(n))


@pytest.mark.parametrize("n", [0, 21])
def test_sign_flip_refuses(n):
    with pytest.raises(ValueError, match="1 to 20"):
        sign_flip_p([0.1] * n)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_never_lowers_and_keeps_the_order(values):
    corrected = holm(values)
    assert all(c >= v for c, v in zip(corrected, values, strict=True))
    order = sorted(range(len(values)), key=lambda i: values[i])
    assert all(corrected[a] <= corrected[b] for a, b in itertools.pairwise(order))


def test_detectable_difference_has_the_power_it_says():
    rng = np.random.default_rng(0)
    n, sd = 6, 0.02
    shift = detectable_difference(sd, n)
    samples = rng.normal(shift, sd, size=(4000, n))
    power = (stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean()
    assert 0.74 < power < 0.88
    assert detectable_difference(sd, 1) == math.inf


@pytest.mark.parametrize("values", [[0.1], [0.02, 0.02, 0.02], []])
def test_one_difference_or_equal_ones_say_nothing(values):
    assert paired_t_p(values) == 1.0
