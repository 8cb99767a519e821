from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, f1_score, precision_score, recall_score

from nls_tune.metrics import Best, BestAverage, ClassCounts, best_average, best_epoch

# Hundredths as exact numbers of a float: the reference below computes with fractions.
accuracies = st.lists(st.integers(0, 64).map(lambda n: n / 64), max_size=30)
first_epochs = st.integers(1, 32)


def slow_best(values: list[float], first: int) -> tuple[int, Fraction] | None:
    """Epoch by epoch, straight from the definition, in exact arithmetic."""
    best = None
    for epoch in range(first, len(values) + 1):
        window = [e for e in (epoch - 1, epoch) if e >= 1]
        mean = sum(Fraction(values[e - 1]) for e in window) / len(window)
        if best is None or mean > best[1]:
            best = (epoch, mean)
    return best


@given(accuracies, first_epochs)
def test_the_best_epoch_is_that_of_the_definition(values, first):
    expected, found = slow_best(values, first), best_epoch(values, first)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert found.epoch == expected[0]
        assert found.value == pytest.approx(float(expected[1]))


@given(accuracies, first_epochs)
def test_the_last_epoch_counts_with_its_plain_accuracy(values, first):
    expected = Best(len(values), values[-1]) if len(values) >= first else None
    assert best_epoch(values, first, "last") == expected


@given(st.integers(0, 3).flatmap(lambda n: st.lists(st.tuples(*[st.integers(0, 16)] * n), max_size=12)), first_epochs)
def test_the_best_average_is_the_best_epoch_over_all_spans(rows, first):
    values = [[n / 16 for n in row] for row in rows]
    best = None
    for span, curve in enumerate(zip(*values, strict=True)):
        found = slow_best(list(curve), first)
        if found is not None and (best is None or found[1] > best[2]):
            best = (found[0], span, found[1])
    assert best_average(values, first) == (None if best is None else BestAverage(*best))


@pytest.mark.parametrize(
    ("values", "first", "expected"),
    [
        ([(), (), (0.5, 0.75)], 1, BestAverage(3, 1, 0.75)),  # judged at the end alone
        ([(0.9, 0.9), (0.5, 0.5)], 1, BestAverage(2, 0, 0.5)),
        ([(), (0.5,)], 3, None),
        ([(0.5,), ()], 1, None),
        ([], 1, None),
    ],
)
def test_where_the_last_epoch_counts_the_averages_of_that_one_do(values, first, expected):
    assert best_average(values, first, "last") == expected


@pytest.mark.parametrize(
    ("values", "first", "expected"),
    [
        ([1.0, 1.0, 0.25, 0.5], 3, Best(3, 0.625)),  # a warm-up is smoothed in for every arm, and never chosen
        ([0.5, 1.0, 0.0, 0.0], 1, Best(2, 0.75)),
        ([0.25], 1, Best(1, 0.25)),  # a single epoch stands for itself
        ([0.5] * 7, 4, Best(4, 0.5)),  # ties go to the earliest
        # 0.3 + 0.2 and 0.2 + 0.3 must not differ in the last bit of a float.
        ([0.0, 0.3, 0.2, 0.3, 0.0], 1, Best(3, 0.25)),
        ([0.0, 0.9, 0.0, 0.75, 0.75], 1, Best(5, 0.75)),  # a lone peak loses to a plateau
    ],
)
def test_known_best_epochs(values, first, expected):
    assert best_epoch(values, first) == expected


def test_arms_of_one_gls_epoch_are_treated_alike():
    ce, rate = best_epoch([0.1270, 0.1502]), best_epoch([0.1270, 0.1494], first_counting=2)
    assert ce == Best(2, pytest.approx(0.1386))
    assert rate == Best(2, pytest.approx(0.1382))


def counts_of(labels: np.ndarray, predicted: np.ndarray, classes: int) -> ClassCounts:
    both = labels[labels == predicted]
    return ClassCounts(*(tuple(np.bincount(of, minlength=classes).tolist()) for of in (labels, predicted, both)))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_metrics_of_predictions_are_those_of_scikit_learn(pairs):
    labels, predicted = np.array(pairs).T
    counts = counts_of(labels, predicted, 5)
    found = counts.scores()
    assert found.accuracy == (labels == predicted).mean()
    assert found.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(f1_score(labels, predicted, average="macro", zero_division=0))
    every = {"average": None, "labels": range(5), "zero_division": np.nan}
    for of, score in ((counts.recalls(), recall_score), (counts.precisions(), precision_score)):
        expected = score(labels, predicted, **every)
        np.testing.assert_allclose([np.nan if value is None else value for value in of], expected)
    assert ClassCounts.from_flat(counts.flat()) == counts


def test_a_constant_prediction_of_two_classes_has_a_balanced_accuracy_of_one_half():
    labels = np.array([0] * 90 + [1] * 10)
    found = counts_of(labels, np.zeros(100, int), 2).scores()
    assert (found.accuracy, found.balanced_accuracy) == (0.9, 0.5)
    assert found.macro_f1 == pytest.approx(0.9 / 1.9)
    assert np.isnan(found._replace(macro_f1=None).of("macro_f1"))
