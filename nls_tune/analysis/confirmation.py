"""What fresh seeds say of the selected configurations: accuracies with intervals, and paired differences to CE."""

from __future__ import annotations

import math
import typing
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from nls_tune.allocation.allocator import Config
from nls_tune.analysis.rows import by_level, config_of, have_settings, searched_settings
from nls_tune.analysis.statistics import (
    SampleMean,
    detectable_difference,
    holm,
    paired_t_p,
    sample_mean,
    sign_flip_p,
    smallest_sign_flip_p,
)
from nls_tune.metrics import PLAIN, Metric
from nls_tune.runs.schemas import ON_ALL_LABELS, Columns, objective_columns, unpack_correct
from nls_tune.spaces.settings import Arm, method_of, ordered_arms

if TYPE_CHECKING:
    import pandas as pd

#: The level of all tests.
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class AllLabels:
    """One configuration trained on all labels, validation samples included, over its seeds.

    Accuracies are those on clean test labels after the last epoch: no samples are left to choose one by. They are of
    the weights, plain or averaged, that most seeds were best with on the split. A seed that diverged counts with what
    it ended with. ``epochs`` are the lengths of the trainings that did not diverge,
    ascending; more than one where seeds were added later. ``difference`` is that to the CE that is the strongest on the
    split, seed by seed; None for that CE itself, and without common seeds.
    """

    epochs: tuple[int, ...]
    num_diverged: int
    test: SampleMean
    difference: SampleMean | None


@dataclass(frozen=True)
class ConfirmedConfiguration:
    """One configuration over its confirmation seeds.

    A seed that diverged counts with its best epoch before that, which is what a user would deploy. One that diverged
    before any epoch counts has the accuracy of guessing, but is missing for CE: no gain is claimed over a CE that broke
    down. One that failed is missing from the ascending ``seeds``. ``config`` holds rate, warm-up length,
    learning rate and whatever else the trials of the level differ in. ``validation`` is the accuracy on noisy labels at
    the best epoch, ``test_at_best`` and ``test_at_last`` those on clean labels there and at the last epoch.
    """

    arm: Arm
    config: Config
    seeds: tuple[int, ...]
    num_diverged: int
    validation: SampleMean
    test_at_best: SampleMean | None
    test_at_last: SampleMean | None
    on_all_labels: AllLabels | None = None


@dataclass(frozen=True)
class PairedComparison:
    """A configuration minus the strongest CE, seed by seed, in test accuracy at the best epoch.

    Attributes:
        sign_flip_p: The exact p value of a difference of 0.
        smallest_p: The smallest p value that this number of seeds can give.
        t_p: The p value of the paired t test; 1 where all differences are equal.
        holm_p: ``sign_flip_p`` corrected over levels and methods, where the configuration is the best of its method on
            validation, and better there than the strongest CE; else None.
        holm_t_p: ``t_p`` likewise.
        proven: Whether a configuration with a ``holm_p`` differs: ``holm_t_p`` is at most 5 %, and so is ``holm_p``.
            Where so many claims do not let it fall that far, all seeds must agree in sign instead; where not even one
            claim would, because there are fewer than six seeds, ``holm_t_p`` decides alone.
        detectable: The smallest true difference that the t test, corrected over the levels, would have found with a
            probability of 80 %, for this draw of the noise and this test set, if validation had ranked it first;
            infinite where the seeds say nothing of it.
        test_error: The standard error of ``difference`` over test samples, which all seeds share: what the interval
            over seeds leaves out. None where a row has no bits, and for other metrics than accuracy.
    """

    difference: SampleMean
    sign_flip_p: float
    smallest_p: float
    t_p: float
    holm_p: float | None
    holm_t_p: float | None
    proven: bool
    detectable: float
    test_error: float | None = None


@dataclass(frozen=True)
class LevelConfirmation:
    """The confirmation of one noise level.

    Attributes:
        configurations: CE first, then positive and negative rates, then other losses.
        strongest_ce: Index of the CE with the highest mean validation accuracy, if there is one.
        best: Index of the configuration with the highest mean validation accuracy.
        comparisons: One per configuration, with the strongest CE; None for that one itself, without a test set,
            without common seeds, and where the verdict finds that this CE has not learned.
        used: Index of the configuration that the verdict says to use, if it is one of them.
        metric: What the run selects by; accuracies are its values.
    """

    noise_level: str
    configurations: tuple[ConfirmedConfiguration, ...]
    strongest_ce: int | None
    best: int
    comparisons: tuple[PairedComparison | None, ...]
    used: int | None = None
    metric: Metric = "accuracy"


def stop_epoch(best_epochs: Sequence[int]) -> int:
    """Return the epoch after which a configuration ends on all labels: the median, halves rounded up.

    Args:
        best_epochs: Those that it had on the split, at least one.
    """
    return math.floor(median(best_epochs) + 0.5)


def usual_readout(readouts: Sequence[str]) -> str:
    """Return the weights that most trainings of a configuration were best with; the plain ones on ties.

    Args:
        readouts: Those of its seeds on the split; none where early versions trained them.
    """
    counts = Counter(readouts)
    return max(counts, key=lambda readout: (counts[readout], readout == PLAIN), default=PLAIN)


def confirmations(
    trials: pd.DataFrame, levels: Sequence[str] = (), metric: Metric = "accuracy"
) -> tuple[LevelConfirmation, ...]:
    """Summarise the confirmation of each level that has confirmation trials with an epoch that counts."""
    ended = trials[trials["status"].isin(["completed", "diverged"])]
    columns = objective_columns(metric)
    rows = _with_guessing(ended[ended["stage"] == "confirm"], columns)
    on_all = ended[(ended["stage"] == ON_ALL_LABELS) & ended[columns.last_test].notna()]
    found = []
    for level, of_level in by_level(rows, levels):
        names = searched_settings(trials[trials["noise_level"] == level])
        found.append(_confirmation(level, of_level, on_all[on_all["noise_level"] == level], names, metric))
    return correct_over_levels(found)


def _with_guessing(rows: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Return the rows that count: those with a value, and those besides CE that diverged before they had one."""
    lost = rows[columns.best_val].isna()
    guessing = lost & (rows["status"] == "diverged") & (rows["arm"] != "ce")
    chance, tested = 1 / rows["num_classes"], rows["num_test"] > 0
    filled = {
        columns.best_val: rows[columns.best_val].mask(guessing, chance),
        columns.test_at_best: rows[columns.test_at_best].mask(guessing & tested, chance),
        columns.last_test: rows[columns.last_test].mask(guessing & tested & rows[columns.last_test].isna(), chance),
    }
    return rows.assign(**filled)[~lost | guessing]


def _confirmation(
    level: str, rows: pd.DataFrame, on_all: pd.DataFrame, names: Sequence[str], metric: Metric
) -> LevelConfirmation:
    columns = objective_columns(metric)
    groups, differ = [], searched_settings(rows)
    # In words, because lists cannot be grouped by: two configurations that are taken for one count each seed twice.
    keys = rows[[*differ, "arm"]].apply(lambda row: str(config_of(row, differ)), axis=1)
    for arm in ordered_arms(rows["arm"]):
        of_arm = rows[rows["arm"] == arm]
        groups += [(arm, group.sort_values("seed")) for _, group in of_arm.groupby(keys, sort=False)]
    configurations = tuple(_configuration(arm, group, names, columns) for arm, group in groups)
    validation = [c.validation.mean for c in configurations]
    ce = [i for i, c in enumerate(configurations) if c.arm == "ce"]
    strongest = max(ce, key=lambda i: validation[i], default=None)
    all_rows = [
        _tested(on_all[have_settings(on_all, config_of(group.iloc[0], differ))], columns) for _, group in groups
    ]
    configurations = tuple(
        replace(c, on_all_labels=_on_all_labels(all_rows[i], None if i == strongest else strongest, all_rows))
        for i, c in enumerate(configurations)
    )
    return LevelConfirmation(
        noise_level=level,
        configurations=configurations,
        strongest_ce=strongest,
        best=int(np.argmax(validation)),
        comparisons=tuple(
            None if strongest is None or i == strongest else _compare(group, groups[strongest][1], metric)
            for i, (_, group) in enumerate(groups)
        ),
        metric=metric,
    )


def _configuration(arm: Arm, rows: pd.DataFrame, names: Sequence[str], columns: Columns) -> ConfirmedConfiguration:
    first = rows.iloc[0]
    has_test = bool(rows[columns.test_at_best].notna().all())
    return ConfirmedConfiguration(
        arm=arm,
        config=config_of(first, names),
        seeds=tuple(int(seed) for seed in rows["seed"]),
        num_diverged=int((rows["status"] == "diverged").sum()),
        validation=sample_mean(rows[columns.best_val].tolist()),
        test_at_best=sample_mean(rows[columns.test_at_best].tolist()) if has_test else None,
        test_at_last=sample_mean(rows[columns.last_test].tolist()) if has_test else None,
    )


def _tested(rows: pd.DataFrame, columns: Columns) -> pd.DataFrame:
    """Add what rows on all labels have on test: with averaged weights, where all that completed were tested so."""
    plain, average = rows[columns.last_test], rows.get(columns.average_test)
    completed = rows["status"] == "completed"
    if average is not None and completed.any() and bool(average[completed].notna().all()):
        plain = average.where(average.notna(), plain)
    return rows.assign(tested=plain)


def _on_all_labels(rows: pd.DataFrame, strongest: int | None, all_rows: Sequence[pd.DataFrame]) -> AllLabels | None:
    if rows.empty:
        return None
    completed = rows[rows["status"] == "completed"]
    differences = [] if strongest is None else _differences(_pairs(rows, all_rows[strongest]), "tested")
    return AllLabels(
        epochs=tuple(sorted({int(epochs) for epochs in completed["epochs"]})),
        num_diverged=len(rows) - len(completed),
        test=sample_mean(rows["tested"].tolist()),
        difference=sample_mean(differences) if differences else None,
    )


def _pairs(rows: pd.DataFrame, ce: pd.DataFrame) -> pd.DataFrame:
    # The draw of the noise belongs to a pair: only then do both train on the same labels.
    return rows.merge(ce, on=["seed", "noise_seed"], suffixes=("", "_ce"))


def _differences(pairs: pd.DataFrame, column: str) -> list[float]:
    return typing.cast("list[float]", (pairs[column] - pairs[f"{column}_ce"]).dropna().tolist())


def _compare(rows: pd.DataFrame, ce: pd.DataFrame, metric: Metric) -> PairedComparison | None:
    pairs = _pairs(rows, ce)
    differences = _differences(pairs, objective_columns(metric).test_at_best)
    if not differences:
        return None
    return PairedComparison(
        difference=sample_mean(differences),
        sign_flip_p=sign_flip_p(differences),
        smallest_p=smallest_sign_flip_p(len(differences)),
        t_p=paired_t_p(differences),
        holm_p=None,
        holm_t_p=None,
        proven=False,
        detectable=math.inf,
        test_error=_test_error(pairs) if metric == "accuracy" else None,
    )


def _test_error(pairs: pd.DataFrame) -> float | None:
    """Return the error of the mean difference over test samples: that of their differences averaged over the seeds."""
    columns = ["test_correct_at_best", "test_correct_at_best_ce"]
    bits = [] if columns[0] not in pairs else pairs[columns].to_numpy().tolist()
    if not bits or not all(isinstance(cell, bytes) for row in bits for cell in row):
        return None
    n = int(pairs["num_test"].iloc[0])
    gaps = [unpack_correct(a, n).astype(float) - unpack_correct(b, n) for a, b in bits]
    return float(np.mean(gaps, axis=0).std(ddof=1)) / math.sqrt(n)


def can_reach(comparison: PairedComparison, num_claims: int) -> bool:
    """Whether the sign-flip test can fall to 5 % with so many seeds, after Holm's correction over so many claims."""
    return comparison.smallest_p * num_claims <= SIGNIFICANT


def _is_refuted(comparison: PairedComparison) -> bool:
    """Whether the sign-flip test speaks against a claim though it cannot reach 5 %: more claims do not silence it."""
    return comparison.smallest_p <= SIGNIFICANT and comparison.sign_flip_p > comparison.smallest_p


def count_claims(found: Sequence[LevelConfirmation]) -> int:
    """Return how many claims a run could make: one per level and method that are compared with CE.

    Each is a chance of a false claim, even where validation then prefers CE: the seeds that choose are those that
    test, so that p values corrected over the levels where a rate leads would be too small. A search selects two rates;
    more of them, confirmed after more trials, are more chances, and every two count as a claim. Of another loss a
    search selects one configuration, and each is a claim.
    """
    total = 0
    for level in found:
        compared = zip(level.configurations, level.comparisons, strict=True)
        counts = Counter(method_of(one.arm) for one, c in compared if one.arm != "ce" and c is not None)
        total += sum(math.ceil(count / 2) if method == "gls" else count for method, count in counts.items())
    return total


def best_of_methods(found: LevelConfirmation) -> dict[str, int]:
    """Return the index of each method's best configuration on validation, by method, without CE."""
    best: dict[str, int] = {}
    for i, one in enumerate(found.configurations):
        known = best.get(method := method_of(one.arm))
        if known is None or one.validation.mean > found.configurations[known].validation.mean:
            best[method] = i
    best.pop("ce", None)
    return best


def best_besides_ce(found: LevelConfirmation) -> int | None:
    """Return the index of the best configuration besides CE on validation, of the proven gains if there are any."""
    rates = [i for i, one in enumerate(found.configurations) if one.arm != "ce"]
    gains = [i for i in rates if (c := found.comparisons[i]) is not None and c.proven and c.difference.mean > 0]
    return max(gains or rates, key=lambda i: found.configurations[i].validation.mean, default=None)


def _claims(found: LevelConfirmation) -> list[int]:
    """Return the configurations that a level claims to beat the strongest CE: validation says so."""
    if found.strongest_ce is None:
        return []
    least = found.configurations[found.strongest_ce].validation.mean
    return [
        i
        for i in best_of_methods(found).values()
        if found.comparisons[i] is not None and found.configurations[i].validation.mean > least
    ]


def correct_over_levels(found: Sequence[LevelConfirmation]) -> tuple[LevelConfirmation, ...]:
    """Correct the p values of the methods' best configurations on validation: they are the claims that are made.

    The levels may be those of one run, or of several runs that one table shows.
    """
    num_claims = count_claims(found)
    made = [claim for level in found for i in _claims(level) if (claim := level.comparisons[i]) is not None]
    none_made = [1.0] * (num_claims - len(made))
    flips, ts = (holm([*p, *none_made]) for p in ([c.sign_flip_p for c in made], [c.t_p for c in made]))
    corrected = iter(zip(flips, ts, strict=True))
    result = []
    for confirmation in found:
        comparisons = [
            one and replace(one, detectable=_detectable(one.difference, num_claims)) for one in confirmation.comparisons
        ]
        for i in _claims(confirmation):
            if (best := comparisons[i]) is not None:
                holm_p, holm_t_p = next(corrected)
                refuted = holm_p > SIGNIFICANT if can_reach(best, num_claims) else _is_refuted(best)
                comparisons[i] = replace(
                    best, holm_p=holm_p, holm_t_p=holm_t_p, proven=holm_t_p <= SIGNIFICANT and not refuted
                )
        result.append(replace(confirmation, comparisons=tuple(comparisons)))
    return tuple(result)


def _detectable(difference: SampleMean, num_claims: int) -> float:
    if difference.num_seeds < 2 or difference.standard_deviation == 0:
        return math.inf
    # Holm's first step, which needs no other level to be proven.
    return detectable_difference(difference.standard_deviation, difference.num_seeds, SIGNIFICANT / max(1, num_claims))
