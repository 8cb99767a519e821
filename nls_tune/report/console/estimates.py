"""Estimates of label noise on the console."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console

from nls_tune.errors import InputError
from nls_tune.noise import noise_cancelling_rate
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.report.annotators import annotators_table
from nls_tune.report.console.tables import print_line, print_table
from nls_tune.report.table import Table, numbers
from nls_tune.report.text import duration, percent, rate
from nls_tune.runs.run_json import RunAnnotator

#: Matrices of more classes are shown by their largest entries.
_MOST_CLASSES = 20
_NUM_ENTRIES = 15
#: Of more annotators those with the highest estimated errors are shown.
_MOST_ANNOTATORS = 20

_BIAS = """\
Counted are the labels of the samples that the models are surest of; the upper end is what confident learning finds,
which takes the models' errors for noise. Where both are far apart, take a better --model and more --train-size. Noise
that depends on the input makes the estimate too low where sure samples have less of it.
The smooth rate cancels symmetric noise; for other noise it is an equivalent. It is a prior, not an answer."""


def print_estimate(estimate: NoiseEstimate, console: Console) -> None:
    """Print the estimated noise of one level: rate, interval, truth where known, matrix."""
    lines = [
        f"{estimate.dataset}, {estimate.noise_level}: {estimate.num_samples:,} labelled samples, "
        f"{estimate.num_classes} classes",
        f"  noise rate   {_with_interval(estimate)}{_truth(estimate)}",
        f"  smooth rate  {_smooth_rate(estimate)}",
        *_models(estimate),
    ]
    print_line("\n".join(lines), console)
    if estimate.num_classes > _MOST_CLASSES:
        _print_largest(estimate, console)
    else:
        _print_matrix(estimate, console)
    if estimate.true_matrix is not None:
        difference = np.abs(np.subtract(estimate.matrix, estimate.true_matrix))
        gaps = f"{100 * difference.mean():.1f} points on average, {100 * difference.max():.1f} at most"
        print_line(f"  Against the true matrix: {gaps}", console)


def print_estimate_line(estimate: NoiseEstimate, console: Console) -> None:
    """Print the estimated noise of one level in one line."""
    print_line(f"  noise rate {_with_interval(estimate)}{_truth(estimate)}; {duration(estimate.seconds)}", console)


def print_annotators(annotators: Sequence[RunAnnotator], console: Console) -> None:
    """Print the errors of annotators, as estimated; nothing where there are none."""
    if annotators:
        print_table(annotators_table(annotators, _MOST_ANNOTATORS), console)


def print_bias(estimates: Sequence[NoiseEstimate], console: Console) -> None:
    """Print what biases the estimates that networks made."""
    if any(estimate.folds for estimate in estimates):
        print_line(_BIAS, console, "dim")


def _models(estimate: NoiseEstimate) -> list[str]:
    """Say what the estimate was made by: networks, or the annotators' labels alone."""
    if not estimate.folds:
        return [
            "  method       Dawid and Skene's, by the labels of several annotators; the interval is the sampling error"
        ]
    models = ", ".join(map(str, estimate.best_epochs))
    return [
        f"  models       {estimate.folds} of {estimate.model}, best epochs {models}, {percent(estimate.accuracy)} of "
        f"the noisy labels predicted out of sample, {duration(estimate.seconds)}",
        f"               labels that they miss are wrong or too hard for them: {percent(1 - estimate.accuracy)}",
    ]


def _with_interval(estimate: NoiseEstimate) -> str:
    if estimate.is_weak:
        ends = f"{100 * estimate.low:.1f} and {percent(estimate.high)}"
        return f"the models are too weak to say, between {ends}"
    return f"{percent(estimate.noise_rate)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _truth(estimate: NoiseEstimate) -> str:
    return "" if estimate.true_noise_rate is None else f"; true {percent(estimate.true_noise_rate)}"


def _smooth_rate(estimate: NoiseEstimate) -> str:
    if estimate.is_weak:
        return "none: the noise is not known well enough"
    if estimate.noise_cancelling_rate is None:
        return "none: right labels do not outweigh wrong ones"
    ends = (_cancelling(noise, estimate.num_classes) for noise in (estimate.high, estimate.low))
    return f"{rate(estimate.noise_cancelling_rate)} [{', '.join(ends)}] cancels symmetric noise of this rate"


def _cancelling(noise: float, num_classes: int) -> str:
    try:
        return rate(noise_cancelling_rate(noise, num_classes))
    except InputError:
        return "none"


def _print_matrix(estimate: NoiseEstimate, console: Console) -> None:
    print_line("  transition matrix in %, rows: clean class, columns: noisy class", console)
    columns = numbers("", *map(str, range(estimate.num_classes)))
    rows = [(str(name), *(f"{100 * value:.1f}" for value in row)) for name, row in enumerate(estimate.matrix)]
    print_table(Table(columns, tuple(rows)), console)


def _print_largest(estimate: NoiseEstimate, console: Console) -> None:
    off_diagonal = np.array(estimate.matrix)
    np.fill_diagonal(off_diagonal, -1.0)
    order = np.argsort(-off_diagonal, axis=None, kind="stable")[:_NUM_ENTRIES]
    print_line(f"  the {_NUM_ENTRIES} largest entries of the transition matrix off its diagonal", console)
    matrices = {"estimated": estimate.matrix, "true": estimate.true_matrix}
    known = {name: matrix for name, matrix in matrices.items() if matrix is not None}
    columns = numbers("clean", "noisy", *known)
    rows = [
        (str(clean), str(noisy), *(percent(matrix[clean][noisy]) for matrix in known.values()))
        for clean, noisy in zip(*np.unravel_index(order, off_diagonal.shape), strict=True)
    ]
    print_table(Table(columns, tuple(rows)), console)
