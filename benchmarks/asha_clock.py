"""Compares clocks that ASHA's rungs could count in: which warm-up lengths they let live, and what is lost by them.

Run ``python benchmarks/asha_clock.py`` in the repository; it takes six minutes on one core. All is measured on
the tables of ``benchmarks/tabulated``; its ``clocks.py`` lists the clocks.

Halving: random sets of 12 trainings of a level, seed and arm meet the package's rungs, where a share of them goes on.
``survive`` is the share that half of them, by arm and warm-up length, leaves at the first rung; ``deserve``, the share
in the better half of its set by the final objective. ``at_cost`` is what the set's survivor loses where the share is
chosen so that the set trains a part of the epochs of a set that is never halved; warm-ups are shared.

Searches: replayed with the package's allocator, the same seeds for every clock. ``test`` and ``validation`` say how far
the selected configuration lies below the grid's best, after a number of epochs per level.

Every number stands with its standard error, and its difference to the first clock's, paired by set or seed, with
that of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from nls_tune.allocation.asha import Rungs
from nls_tune.machine.provenance import provenance
from nls_tune.spaces.settings import arm_of

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER / "tabulated"))
from clocks import CLOCKS, Clock  # noqa: E402
from compare import BUDGETS, NAMES, regret_path, table_of  # noqa: E402
from replay import Ended, Variant, load_table_space, replay_variant  # noqa: E402
from table import Table  # noqa: E402

#: Sets per level, seed and arm, and trainings of a set.
SETS, MEMBERS = 20, 12
#: Shares that go on at a rung, and epochs at which the losses are read.
SHARES = (0.25, 1 / 3, 0.42, 0.5, 0.58, 2 / 3, 0.75, 0.84)
COSTS = (0.35, 0.4, 0.5)


@dataclass(frozen=True)
class Population:
    """The trainings of a level, seed and arm that did not diverge: one column each, one row per rung."""

    arm: str
    warmups: np.ndarray
    final: np.ndarray
    test: np.ndarray
    epochs: dict[str, np.ndarray]
    values: dict[str, np.ndarray]


def populations(table: Table, rungs: Sequence[int]) -> Iterator[Population]:
    """Yield all trainings of a table. Rungs that see nothing of one stand at its end."""

    def epoch_of(clock: Clock, rung: int, warmup: int, arm: str, curve: Any) -> int:
        epoch = clock.epoch(rung, warmup, arm == "ce", table.epochs)
        return table.epochs if clock.value(curve, epoch) is None else min(epoch, table.epochs)

    for level in table.levels:
        for curves in level.curves.values():
            for arm in ("ce", "positive", "negative"):
                mine = {p: c for p, c in curves.items() if not c.diverged and arm_of(table.rates[p[0]]) == arm}
                warmups = np.array([table.warmups[p[1]] for p in mine])
                pairs = list(zip(warmups, mine.values(), strict=True))
                epochs = {
                    n: np.array([[epoch_of(c, r, w, arm, v) for w, v in pairs] for r in rungs])
                    for n, c in CLOCKS.items()
                }
                values = {
                    n: np.array([[c.value(v, e) for e, (_, v) in zip(row, pairs, strict=True)] for row in epochs[n]])
                    for n, c in CLOCKS.items()
                }
                final = np.array([c.objective(table.epochs)[1] for c in mine.values()])
                yield Population(arm, warmups, final, np.array([level.truth("b")[p] for p in mine]), epochs, values)


def halve(found: Population, clock: str, members: np.ndarray, share: float, length: int) -> np.ndarray:
    """Return the epochs that a set trains if a share of it goes on at every rung."""
    end = np.full(len(members), length)
    kinds = found.warmups[members] if CLOCKS[clock].by_length else np.zeros(len(members))
    for epochs, values in zip(found.epochs[clock][:, members], found.values[clock][:, members], strict=True):
        for kind in np.unique(kinds):
            seen = np.flatnonzero((kinds == kind) & (end == length) & (epochs < length))
            if len(seen):
                bar = np.sort(values[seen])[-max(1, int(len(seen) * share + 1e-9))]
                end[seen] = np.where(values[seen] < bar, epochs[seen], length)
    return end


def cost(end: np.ndarray, warmups: np.ndarray) -> float:
    """Return the epochs that a set trains, its warm-ups shared."""
    return float(np.maximum(0, end - warmups).sum() + np.minimum(end, warmups).max())


def halving(name: str) -> dict[str, Any]:
    """Return who lives through the first rung, and what is lost at equal cost, by clock, on one table."""
    table, rng = table_of(name), np.random.default_rng(0)
    budget = load_table_space(table).budget
    rungs = Rungs.geometric(budget.grace_epochs, table.epochs, budget.reduction_factor).levels
    sets = [
        (found, rng.choice(len(found.final), MEMBERS, replace=False))
        for found in populations(table, rungs)
        for _ in range(SETS)
    ]
    survive: dict[str, dict[str, list[bool]]] = {clock: defaultdict(list) for clock in (*CLOCKS, "deserve")}
    losses: dict[str, list[dict[str, float]]] = {clock: [] for clock in CLOCKS}
    for found, members in sets:
        final, test, warmups = found.final[members], found.test[members], found.warmups[members]
        keys = [f"{found.arm}, warm-up {warmup}" for warmup in warmups]
        full = cost(np.full(MEMBERS, table.epochs), warmups)
        for key, deserves in zip(keys, final >= np.sort(final)[MEMBERS // 2], strict=True):
            survive["deserve"][key].append(deserves)
        for clock in CLOCKS:
            ends = [halve(found, clock, members, share, table.epochs) for share in SHARES]
            first, end = found.epochs[clock][0, members], ends[SHARES.index(0.5)]
            for key, lives in zip(keys, (end > first) | (first == table.epochs), strict=True):
                survive[clock][key].append(lives)
            winners = [int(np.argmax(np.where(end == table.epochs, final, -1))) for end in ends]
            costs = [cost(end, warmups) / full for end in ends]
            found_losses = {"test": test.max() - test[winners], "validation": final.max() - final[winners]}
            losses[clock].append(
                {
                    f"{what}_at_{at}": float(np.interp(at, costs, loss))
                    for what, loss in found_losses.items()
                    for at in COSTS
                }
            )
    return {
        "sets": len(sets),
        "survive": {c: {key: float(np.mean(rows[key])) for key in sorted(rows)} for c, rows in survive.items()},
        "at_cost": {clock: describe(rows, losses["GLS epochs"]) for clock, rows in losses.items()},
    }


def search(name: str, variant: Variant, seed: int, trials: int) -> dict[str, float]:
    """Replay a search and return what its selection loses after the budgets and at the end, and its epochs."""
    table = table_of(name)
    ended = replay_variant(table, seed, variant, trials)
    found = {"epochs": ended[-1].epochs_trained / len(table.levels)}
    for what, path in {
        "test": regret_path(table, ended, "b"),
        "validation": validation_path(table, ended, seed),
    }.items():
        for budget in (*BUDGETS[:-1], math.inf):
            found[f"{what}_at_{budget}"] = [regret for epochs, regret in path if epochs <= budget][-1]
    return {key.replace("_inf", "_end"): value for key, value in found.items()}


def validation_path(table: Table, ended: Sequence[Ended], seed: int) -> list[tuple[float, float]]:
    """Return, after every trial, the mean over levels of what the best objective lacks to the grid's."""
    seed = table.levels[0].seeds[seed % len(table.levels[0].seeds)]
    best = {
        level.name: max(found[1] for c in level.curves[seed].values() if (found := c.objective(table.epochs)))
        for level in table.levels
    }
    lacks = {name: value - 1 / table.num_classes for name, value in best.items()}
    path = []
    for trial in ended:
        if trial.completed and trial.value is not None:
            lacks[trial.level] = min(lacks[trial.level], best[trial.level] - trial.value)
        path.append((trial.epochs_trained / len(table.levels), float(np.mean(list(lacks.values())))))
    return path


def describe(rows: Sequence[dict[str, float]], base: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return mean and standard error of every number, and of its difference to another clock's."""
    found = {}
    for key in rows[0]:
        values = np.array([row[key] for row in rows])
        less = values - np.array([row[key] for row in base])
        mean, error, difference, its_error = (
            float(f) for v in (values, less) for f in (v.mean(), v.std(ddof=1) / math.sqrt(len(v)))
        )
        found[key] = {"mean": mean, "error": error, "difference": difference, "difference_error": its_error}
    return found


def show(title: str, rows: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print means and, in brackets, differences to the first clock with their errors; all but epochs in points."""
    print(f"\n{title}")
    for clock, row in rows.items():
        cells = []
        for key, cell in row.items():
            mean, less, error = (
                cell[k] * (1 if key == "epochs" else 100) for k in ("mean", "difference", "difference_error")
            )
            cells.append(f"{key} {mean:.2f} ({less:+.2f}, {error:.2f})")
        print(f"{clock:34}" + "  ".join(cells), flush=True)


def measure(name: str, seeds: int, trials: int) -> dict[str, Any]:
    """Return and print all that is measured on a table."""
    found = halving(name)
    print(f"\n{name}: share that lives through the first rung ({', '.join(found['survive']['deserve'])})")
    for clock, shares in found["survive"].items():
        print(f"{clock:34}" + "  ".join(f"{share:.2f}" for share in shares.values()))
    show(f"{name}, sets of {MEMBERS} at equal cost", found["at_cost"])
    runs = {clock: [search(name, Variant(clock=clock), seed, trials) for seed in range(seeds)] for clock in CLOCKS}
    found["searches"] = {clock: describe(rows, runs["GLS epochs"]) for clock, rows in runs.items()}
    show(f"{name}, searches with {trials} trials per level", found["searches"])
    return found


def main() -> None:
    """Measure every clock, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--trials", type=int, default=20, help="trials per level, by default as the spaces ship them")
    parser.add_argument("--out", type=Path, default=FOLDER / "evidence" / "asha_clock.json")
    options = parser.parse_args()
    evidence: dict[str, Any] = {
        "what": "clocks of ASHA's rungs on tabulated trainings; fractions and epochs, means with standard errors",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "seeds": options.seeds,
        "trials": options.trials,
    }
    with ProcessPoolExecutor(len(NAMES), mp_context=get_context("spawn")) as pool:
        found = pool.map(measure, NAMES, repeat(options.seeds), repeat(options.trials))
        evidence |= dict(zip(NAMES, found, strict=True))
    options.out.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
