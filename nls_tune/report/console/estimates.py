"""Estimates of label noise on the console."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

from nls_tune.errors import InputError
from nls_tune.noise import noise_cancelling_rate
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.report.console.tables import print_whole
from nls_tune.report.text import duration, percent, rate

#: Matrices of more classes are shown by their largest entries.
_MOST_CLASSES = 20
_NUM_ENTRIES = 15

_BIAS = """\
The interval knows sampling error alone. A model that errs by itself makes the estimate too high, a weak one by much:
take a better --model and more --train-size. Noise that depends on the input, or that mixes classes strongly, makes it
too low: the model shares mistakes that it can learn.
The smooth rate cancels symmetric noise; for other noise it is an equivalent. It is a prior, not an answer."""


def print_estimate(estimate: NoiseEstimate, console: Console) -> None:
    """Print the estimated noise of one level: rate, interval, truth where known, matrix."""
    models = ", ".join(map(str, estimate.best_epochs))
    lines = [
        f"{estimate.dataset}, {estimate.noise_level}: {estimate.num_samples:,} labelled samples, "
        f"{estimate.num_classes} classes",
        f"  noise rate   {_with_interval(estimate)}{_truth(estimate)}",
        f"  smooth rate  {_smooth_rate(estimate)}",
        f"  models       {estimate.folds} of {estimate.model}, best epochs {models}, {percent(estimate.accuracy)} of "
        f"the noisy labels predicted out of sample, {duration(estimate.seconds)}",
        f"               labels that they miss are wrong or too hard for them: {percent(1 - estimate.accuracy)}",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    if estimate.num_classes > _MOST_CLASSES:
        _print_largest(estimate, console)
    else:
        _print_matrix(estimate, console)
    if estimate.true_matrix is not None:
        difference = np.abs(np.subtract(estimate.matrix, estimate.true_matrix))
        console.print(
            f"  Against the true matrix: {100 * difference.mean():.1f} points on average, "
            f"{100 * difference.max():.1f} at most",
            highlight=False,
            soft_wrap=True,
        )


def print_estimate_line(estimate: NoiseEstimate, console: Console) -> None:
    """Print the estimated noise of one level in one line."""
    line = f"  noise rate {_with_interval(estimate)}{_truth(estimate)}; {duration(estimate.seconds)}"
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def print_bias(console: Console) -> None:
    """Print what biases an estimate."""
    console.print(_BIAS, markup=False, highlight=False, soft_wrap=True, style="dim")


def _with_interval(estimate: NoiseEstimate) -> str:
    interval = f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    return f"{percent(estimate.noise_rate)} {interval}, bootstrap 95 %"


def _truth(estimate: NoiseEstimate) -> str:
    return "" if estimate.true_noise_rate is None else f"; true {percent(estimate.true_noise_rate)}"


def _smooth_rate(estimate: NoiseEstimate) -> str:
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
    console.print("  transition matrix in %, rows: clean class, columns: noisy class", highlight=False)
    table = Table(box=None, padding=(0, 1, 0, 0))
    table.add_column("", justify="right", min_width=4)
    for name in range(estimate.num_classes):
        table.add_column(str(name), justify="right", min_width=4, no_wrap=True)
    for name, row in enumerate(estimate.matrix):
        table.add_row(str(name), *(f"{100 * value:.1f}" for value in row))
    print_whole(table, console)


def _print_largest(estimate: NoiseEstimate, console: Console) -> None:
    off_diagonal = np.array(estimate.matrix)
    np.fill_diagonal(off_diagonal, -1.0)
    order = np.argsort(-off_diagonal, axis=None, kind="stable")[:_NUM_ENTRIES]
    console.print(f"  the {_NUM_ENTRIES} largest entries of the transition matrix off its diagonal", highlight=False)
    table = Table(box=None, padding=(0, 1, 0, 2))
    for name in ("clean", "noisy", "estimated", "true"):
        if name != "true" or estimate.true_matrix is not None:
            table.add_column(name, justify="right", no_wrap=True)
    for clean, noisy in zip(*np.unravel_index(order, off_diagonal.shape), strict=True):
        values = [matrix[clean][noisy] for matrix in (estimate.matrix, estimate.true_matrix) if matrix is not None]
        table.add_row(str(clean), str(noisy), *(percent(value) for value in values))
    print_whole(table, console)
