"""Several people's labels: what their errors are estimated as, and which labels are taken for the right ones."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nls_tune.datasets import cifarn, dataset_info
from nls_tune.errors import InputError
from nls_tune.noise import apply_transition, pairflip_matrix, symmetric_matrix
from nls_tune.noise.annotators import GAP, estimate_annotators, majority_vote, vote_shares


def labels_of(errors: list[float], num_classes: int, gaps: float, seed: int = 0, items: int = 6_000):
    """Right labels, and those of annotators who err independently at some rates and leave gaps."""
    rng = np.random.default_rng(seed)
    clean = rng.integers(num_classes, size=items)
    table = np.stack(
        [apply_transition(clean, symmetric_matrix(num_classes, e), seed + i) for i, e in enumerate(errors)], axis=1
    )
    hidden = rng.random(table.shape) < gaps
    hidden[np.arange(items), rng.integers(len(errors), size=items)] = False
    return clean, np.where(hidden, GAP, table)


@pytest.mark.parametrize("gaps", [0.0, 0.3])
@pytest.mark.parametrize(("errors", "num_classes"), [([0.1, 0.2, 0.4], 10), ([0.05, 0.2, 0.3], 2), ([0.3] * 5, 4)])
def test_errors_of_three_or_more_are_within_five_points_also_with_gaps(errors, num_classes, gaps):
    clean, table = labels_of(errors, num_classes, gaps)
    found = estimate_annotators(table, num_classes)
    truth = [np.mean(column[column != GAP] != clean[column != GAP]) for column in table.T]
    np.testing.assert_allclose(found.error_rates, truth, atol=0.05)
    for matrix, error in zip(found.matrices, errors, strict=True):
        np.testing.assert_allclose(matrix, symmetric_matrix(num_classes, error), atol=0.08)
    right = np.mean(found.probabilities.argmax(axis=1) == clean)
    assert right >= np.mean(majority_vote(table, num_classes) == clean) - 0.005


def test_an_annotator_who_confuses_two_classes_is_found_out():
    clean, table = labels_of([0.1, 0.1, 0.1], 5, 0.0)
    table[:, 2] = apply_transition(clean, pairflip_matrix(5, 0.45), 9)
    found = estimate_annotators(table, 5)
    np.testing.assert_allclose(found.matrices[2], pairflip_matrix(5, 0.45), atol=0.06)
    right = np.mean(found.probabilities.argmax(axis=1) == clean)
    assert right > np.mean(majority_vote(table, 5) == clean)


def test_agreement_is_counted_among_the_items_that_both_have_labelled():
    table = [[0, 0, GAP], [1, 0, GAP], [1, GAP, GAP], [1, 1, GAP], [GAP, GAP, 0]]
    found = estimate_annotators(table, 2).agreement
    np.testing.assert_allclose(found, [[1, 2 / 3, np.nan], [2 / 3, 1, np.nan], [np.nan, np.nan, 1]])


@settings(max_examples=settings.default.max_examples // 2)
@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_what_it_returns_are_probabilities(num_classes, annotators, items, seed):
    table, _ = votes(num_classes, annotators, items, seed)
    table[0, :] = np.maximum(table[0, :], 0)
    found = estimate_annotators(table, num_classes)
    for shares in (found.probabilities, found.matrices, found.prior):
        assert (shares >= 0).all()
        np.testing.assert_allclose(shares.sum(axis=-1), 1)
    assert ((found.error_rates >= -1e-12) & (found.error_rates <= 1)).all()


def votes(num_classes, annotators, items, seed):
    """Labels with gaps, at least one per item."""
    rng = np.random.default_rng(seed)
    table = rng.integers(-1, num_classes, size=(items, annotators))
    table[(table == GAP).all(axis=1), 0] = 0
    return table, rng


@given(st.integers(2, 5), st.integers(1, 5), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_majority_and_shares_are_those_of_the_votes_in_any_order_of_the_annotators(num_classes, people, items, seed):
    table, rng = votes(num_classes, people, items, seed)
    shares, ties = vote_shares(table, num_classes), rng.integers(2**32, size=items)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    assert (shares >= 0).all()
    lowest, drawn = majority_vote(table, num_classes), majority_vote(table, num_classes, ties)
    np.testing.assert_array_equal(lowest, shares.argmax(axis=1))
    np.testing.assert_array_equal(shares[np.arange(items), drawn], shares.max(axis=1))
    order = rng.permutation(people)
    np.testing.assert_array_equal(vote_shares(table[:, order], num_classes), shares)
    np.testing.assert_array_equal(majority_vote(table[:, order], num_classes, ties), drawn)
    rows = rng.permutation(items)
    np.testing.assert_array_equal(majority_vote(table[rows], num_classes, ties[rows]), drawn[rows])


def test_ties_prefer_no_class():
    table, ties = np.array([[2, 0, 1]] * 3_000), np.random.default_rng(0).integers(2**32, size=3_000)
    assert (majority_vote(table, 4) == 0).all()
    found = np.bincount(majority_vote(table, 4, ties), minlength=4) / 3_000
    np.testing.assert_allclose(found, [1 / 3, 1 / 3, 1 / 3, 0], atol=0.03)


def test_the_order_of_annotators_does_not_matter():
    _, table = labels_of([0.1, 0.2, 0.4], 5, 0.2)
    one, other = estimate_annotators(table, 5), estimate_annotators(table[:, ::-1], 5)
    np.testing.assert_allclose(one.error_rates, other.error_rates[::-1])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1], r"must be of shape \(items, annotators\), got \(2,\)"),
        (np.empty((0, 3), int), r"got \(0, 3\)"),
        ([[0, 1], [GAP, GAP], [GAP, GAP]], "every item needs a label of somebody, 2 have none, the first is item 1"),
        ([[0, GAP], [1, GAP]], "annotator 1 has no label; leave the column out"),
        ([[0, 3], [1, 1]], "labels must"),
        ([[0.5, 1.0]], "labels must"),
    ],
)
def test_bad_labels_are_one_line(labels, message):
    with pytest.raises(InputError, match=message):
        estimate_annotators(labels, 3)


@pytest.mark.skipif(not os.environ.get("NLS_TUNE_DATA"), reason="NLS_TUNE_DATA names no folder with CIFAR-10N")
def test_three_people_of_cifar_10n():
    """Figures of the labels themselves: true errors 17.2, 18.1 and 17.6 %, 90.99 % of the majority's labels right."""
    info = dataset_info("cifar10n")
    arrays = cifarn._load(cifarn.find_labels(info))  # without the images, which would be read for nothing
    clean = arrays["clean_label"]
    table = np.stack([arrays[f"random_label{number}"] for number in (1, 2, 3)], axis=1)
    found = estimate_annotators(table, 10)
    np.testing.assert_allclose(found.error_rates, [0.172, 0.181, 0.176], atol=0.03)
    assert np.mean(found.probabilities.argmax(axis=1) == clean) > 0.915
