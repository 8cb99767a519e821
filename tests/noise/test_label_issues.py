"""Labels that are probably wrong: the rule on figures computed by hand, and its finds where the truth is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from nls_tune import InputError, find_label_issues
from nls_tune.noise.label_issues import _whole_counts

#: Six samples of two classes. Thresholds: class 0, mean of 0.9, 0.8, 0.1 = 0.6; class 1, mean of 0.9, 0.7, 0.4 = 2/3.
#: Label 0: two samples are confident of 0, the third of 1. Label 1: two of 1, the third (0.6 for class 0) of 0.
LABELS = [0, 0, 0, 1, 1, 1]
FIRST = [0.9, 0.8, 0.1, 0.1, 0.3, 0.6]


#: Whose largest remainders are never equal: of equal ones, cleanlab's choice depends on the processor's sort.
FOUND_ELSEWHERE = json.loads((Path(__file__).parents[1] / "data" / "label_issues" / "cleanlab.json").read_text())


def two_classes(first: list[float]) -> np.ndarray:
    return np.column_stack([first, 1 - np.array(first)])


def test_the_joint_counts_one_issue_of_each_label():
    found = find_label_issues(LABELS, two_classes(FIRST))
    assert len(found) == 2
    assert found.indices.tolist() == [2, 5]  # ranked by the probability of the label: 0.1, then 0.4
    assert found.labels.tolist() == [0, 1]
    assert found.suggested.tolist() == [1, 0]
    np.testing.assert_allclose(found.scores, [0.1, 0.4])


def test_a_sample_that_is_confident_of_no_class_counts_neither_way():
    # Class 0: mean of 0.9, 0.9, 0.45, 0.05 = 0.575. Class 1: mean of 0.9, 0.9 = 0.9. Sample 2 is confident of none;
    # of the other three of label 0 one is confident of 1. Scaled to four labels: 4 * 2/3 = 2.67 and 1.33, so 3 and 1.
    labels, first = [0, 0, 0, 0, 1, 1], [0.9, 0.9, 0.45, 0.05, 0.1, 0.1]
    found = find_label_issues(labels, two_classes(first))
    assert found.indices.tolist() == [3]


def test_counts_scaled_up_take_the_largest_margins_and_no_label_that_is_the_most_probable():
    # Thresholds: class 0, mean of 0.95, 0.49, 0.45, 0.1 = 0.4975; class 1: 0.85. Of label 0 one sample is confident of
    # 0 and one of 1, so that two of four are issues. Margins: 0.8 (sample 3), 0.1 (sample 2), 0.02 (sample 1).
    labels, first = [0, 0, 0, 0, 1, 1], [0.95, 0.49, 0.45, 0.1, 0.1, 0.2]
    found = find_label_issues(labels, two_classes(first))
    assert found.indices.tolist() == [
        3,
        2,
    ]  # 0.9 - 0.1 = 0.8, then 0.55 - 0.45 = 0.1; 0.51 - 0.49 = 0.02 is one too many
    # Where the second margin is negative, the label is the most probable class, and no issue.
    # Thresholds: class 0, mean of 0.95, 0.6, 0.6, 0.1 = 0.5625, so that 0.6 is confident: three to one.
    assert find_label_issues(labels, two_classes([0.95, 0.6, 0.6, 0.1, 0.1, 0.2])).indices.tolist() == [3]


def test_each_pair_of_classes_has_its_own_margins():
    # Thresholds 0.61, 0.8, 0.8. Of label 0, one sample is confident of class 1 and one of class 2.
    of_label_0 = [[0.9, 0.05, 0.05], [1, 0, 0], [1, 0, 0], [0.1, 0.85, 0.05], [0.5, 0.1, 0.4], [0.15, 0.03, 0.82]]
    probabilities = np.array([*of_label_0, [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    labels = [0, 0, 0, 0, 0, 0, 1, 2]
    found = find_label_issues(labels, probabilities)
    # Confident of 0: three, of 1: one, of 2: one; scaled from five to six: 3.6, 1.2, 1.2, so 4, 1, 1.
    assert found.indices.tolist() == [3, 5]
    assert found.suggested.tolist() == [1, 2]


@pytest.mark.parametrize("problem", FOUND_ELSEWHERE["problems"], ids=lambda p: f"{p['classes']}-{p['seed']}")
def test_the_issues_and_their_order_are_those_of_cleanlab(problem):
    rng = np.random.Generator(np.random.PCG64(problem["seed"]))
    samples, classes = problem["samples"], problem["classes"]
    truth = rng.integers(0, classes, samples)
    labels = np.where(rng.random(samples) < problem["rate"], rng.integers(0, classes, samples), truth)
    logits = rng.normal(size=(samples, classes))
    logits[np.arange(samples), truth] += problem["margin"]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert find_label_issues(labels, probabilities).indices.tolist() == problem["issues"]


def test_several_thresholds_reached_leave_the_most_probable_class_even_below_its_own():
    # Thresholds 0.59, 0.34, 0.25, 0.9. The third sample of label 0 reaches those of 1 and 2, but is most probably 0:
    # counted for class 1, it would make an issue of the fourth, which reaches none.
    of_label_0 = [[0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0], [0.36, 0.34, 0.3, 0], [0.3, 0.335, 0.2, 0.165]]
    others = [[0.33, 0.34, 0, 0.33], [0.25, 0.25, 0.25, 0.25], [0, 0, 0.1, 0.9]]
    assert len(find_label_issues([0, 0, 0, 0, 1, 2, 3], np.array([*of_label_0, *others]))) == 0


@pytest.mark.parametrize(
    ("row", "kept", "whole"),
    [
        ([2.4, 1.8, 1.8], 1, [2, 2, 2]),
        ([3.5, 1.75, 1.75], 1, [3, 2, 2]),  # the floors are 3, 1, 1, and the largest remainders 0.75
        ([0.0, 4.0, 2.0], 1, [1, 3, 2]),  # 4 and 2 of at most 5: 3.33 and 1.67
        ([0.0, 4.0, 2.0], 0, [0, 4, 2]),
        ([0.0, 4.0, 2.0], 9, [6, 0, 0]),
        ([1.5, 1.5, 0.0], 1, [1, 2, 0]),  # of equal remainders the last
    ],
)
def test_counts_become_whole(row, kept, whole):
    counts = np.array([row, [0, 1, 0], [0, 0, 1]], float)
    noisy = np.array([0] * round(sum(row)) + [1, 2])
    assert _whole_counts(counts, noisy, kept).tolist() == [whole, [0, 1, 0], [0, 0, 1]]


def test_a_label_keeps_a_sample_and_one_that_nobody_has_is_no_trouble():
    # Both samples of label 1 are confident of 0; one of them stays. The third of label 0 is confident of 1, whose
    # threshold is 0.04, but its label is the most probable class.
    labels = [0, 0, 0, 1, 1]
    probabilities = np.array([[0.9, 0.1, 0], [0.9, 0.1, 0], [0.6, 0.4, 0], [0.95, 0.05, 0], [0.97, 0.03, 0]])
    assert find_label_issues(labels, probabilities).indices.tolist() == [4]
    assert find_label_issues(labels, probabilities, min_examples_per_class=0).indices.tolist() == [4, 3]


def test_most_finds_are_wrong_and_most_wrong_labels_are_found():
    rng = np.random.default_rng(0)
    clean = rng.integers(4, size=2_000)
    noisy = np.where(rng.random(2_000) < 0.2, (clean + rng.integers(1, 4, 2_000)) % 4, clean)
    logits = 3 * np.eye(4)[clean] + rng.normal(size=(2_000, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = find_label_issues(noisy, probabilities)
    wrong = noisy != clean
    assert wrong[found.indices].mean() > 0.9
    assert wrong[found.indices].sum() / wrong.sum() > 0.9
    assert (found.suggested == clean[found.indices]).mean() > 0.9
    assert (np.diff(found.scores) >= 0).all()


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([0, 1], [[0.5, 0.5]], r"of shape \(1,\), one per row"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "labels"),
        ([0], [[2.0, -1.0]], "from 0 to 1"),
        ([0], [1.0], r"of shape \(N, K\)"),
    ],
)
def test_bad_input_is_said(labels, probabilities, message):
    with pytest.raises(InputError, match=message):
        find_label_issues(labels, np.array(probabilities))


def test_no_label_can_be_kept_a_negative_number_of_times():
    with pytest.raises(InputError, match="at least 0, got -1; 1 is usual"):
        find_label_issues(LABELS, two_classes(FIRST), min_examples_per_class=-1)
