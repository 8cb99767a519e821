"""Compares ways to search on the tables: regret at fixed budgets, ablations, and what noisy validation costs.

Run ``python benchmarks/tabulated/compare.py`` in the repository; it takes a quarter of an hour per table on 2 cores.
Regret is the test accuracy of the grid's best point minus that of the recommended one, both where a user would stop
and as means over the tabulated seeds. Defaults were looked at on one half of the test samples (``--half a``);
what is reported is the other half.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from replay import (
    Ended,
    GridSearch,
    RandomSearch,
    RayOptuna,
    Variant,
    replay,
    replay_variant,
    variants,
)
from table import FOLDER, Level, Point, Table

from nls_tune.spaces.settings import arm_of

NAMES = ("twonorm", "waveform", "digits")
#: Epochs a level at which regret is read.
BUDGETS = (100, 200, 400, 800)
CLOSE = 0.005
#: Seeds of a replayed confirmation.
NUM_FRESH = 2
EVIDENCE = FOLDER.parent / "evidence"
_TABLES: dict[str, Table] = {}

METHODS: dict[str, Callable[[Table, int], list[Ended]]] = {
    "nls_tune": lambda table, seed: replay_variant(table, seed, Variant()),
    "full grid": lambda table, seed: replay(GridSearch(table, seed), table, warm_store=False),
    "random search": lambda table, seed: replay(RandomSearch(table, seed), table, warm_store=False),
    "OptunaSearch + ASHA by level": lambda table, seed: replay(RayOptuna(table, seed), table, warm_store=False),
    "the same, informed": lambda table, seed: replay(RayOptuna(table, seed, informed=True), table),
}


#: Everything that is replayed: methods, then the ablations of ours.
ALL = (*METHODS, *(name for name, _ in variants() if name != "as shipped"))


def table_of(name: str) -> Table:
    """Return a table, read once a process."""
    if name not in _TABLES:
        _TABLES[name] = Table(name)
    return _TABLES[name]


def regret_path(table: Table, ended: Sequence[Ended], half: str, objective: Any = "best") -> list[tuple[float, float]]:
    """Return the mean regret over levels after every trial, with the epochs that had been trained a level."""
    best = {level.name: max(level.truth(half).values()) for level in table.levels}
    truth = {level.name: level.truth(half, objective) for level in table.levels}
    leader: dict[str, tuple[float, float]] = {
        level.name: (-math.inf, best[level.name] - 1 / table.num_classes) for level in table.levels
    }
    path = []
    for trial in ended:
        if trial.completed and trial.value is not None and trial.value > leader[trial.level][0]:
            leader[trial.level] = (trial.value, best[trial.level] - truth[trial.level][trial.point])
        mean = float(np.mean([regret for _, regret in leader.values()]))
        path.append((trial.epochs_trained / len(table.levels), mean))
    return path


def summary(path: list[tuple[float, float]]) -> dict[str, float]:
    """Return regret at the budgets, at the end, and the epochs after which it stays close."""
    found = {}
    for budget in BUDGETS:
        before = [regret for epochs, regret in path if epochs <= budget]
        found[f"regret_at_{budget}"] = before[-1] if before else math.nan
    found["regret_at_end"] = path[-1][1]
    found["epochs"] = path[-1][0]
    far = [i for i, (_, regret) in enumerate(path) if regret > CLOSE]
    after = far[-1] + 1 if far else 0
    found["epochs_until_close"] = path[after][0] if after < len(path) else math.inf
    return found


def confirmation_gains(level: Level, ended: Sequence[Ended], half: str, *, quarter: bool = False) -> dict[str, float]:
    """Return the test accuracy that a confirmation gains over the highest validation accuracy of the search.

    One or two of the best configurations of each arm are trained again with two fresh seeds, and the highest mean
    validation accuracy over these wins. The seeds that took no part judge, on their test samples.

    Args:
        level: The noise level.
        ended: Its trials, all of one seed.
        half: The test samples that judge.
        quarter: Whether to choose by a quarter of the validation samples.

    Returns:
        Gains by the number of configurations per arm; empty without a completed trial or with too few seeds.
    """
    completed = sorted((t for t in ended if t.completed and t.value is not None), key=_best_first)
    left = [seed for seed in level.seeds if completed and seed != completed[0].seed]
    fresh, judges = left[:NUM_FRESH], left[NUM_FRESH:]
    if not judges:
        return {}
    by_arm: dict[str, list[Point]] = {}
    for point in dict.fromkeys(t.point for t in completed):
        by_arm.setdefault(arm_of(level.table.rates[point[0]]), []).append(point)
    raw = level.test(completed[0].point, half, judges)
    found = {}
    for count in (1, 2):
        again = [point for points in by_arm.values() for point in points[:count]]
        best = max(again, key=lambda point: level.validation(point, fresh, quarter=quarter))
        found[f"confirm_{count}"] = level.test(best, half, judges) - raw
    return found


def _best_first(trial: Ended) -> tuple[float, int]:
    return (-(trial.value or 0.0), trial.order)


def one(task: tuple[str, str, int, str]) -> dict[str, float]:
    """Replay one method or ablation with one seed."""
    name, method, seed, half = task
    table = table_of(name)
    if method in METHODS:
        ended = METHODS[method](table, seed)
        found = summary(regret_path(table, ended, half))
        if method == "nls_tune":
            gains = [confirmation_gains(lv, [t for t in ended if t.level == lv.name], half) for lv in table.levels]
            found |= {key: float(np.mean([g[key] for g in gains if g])) for key in ("confirm_1", "confirm_2")}
        return found
    variant = dict(variants())[method]
    return summary(regret_path(table, replay_variant(table, seed, variant), half, variant.objective))


def warm_seed_regret(task: tuple[int, int, str]) -> dict[str, float]:
    """Replay on the table whose seeds share their data, with some seeds of warm-up and training."""
    seeds, seed, half = task
    table = table_of("twonorm_seeds")
    return summary(regret_path(table, replay_variant(table, seed, Variant(seeds=seeds)), half))


def selection_regret(task: tuple[str, str, bool, int]) -> dict[str, float]:
    """Return what it costs to choose by noisy validation instead of clean labels, for random sets of trials.

    Sets of 24 trials are drawn from the grid as a search with arms would share them out, all at full length. The clean
    choice is made by one half of the test samples; both are judged by the other half. ``confirm_1`` and ``confirm_2``
    are the gains of a confirmation, ``second`` what the second configuration per arm adds, see ``confirmation_gains``.
    """
    name, level_name, quarter, draws = task
    table = table_of(name)
    level = next(lv for lv in table.levels if lv.name == level_name)
    judge, clean = level.truth("b"), level.truth("a")
    rng = random.Random(f"{name}/{level_name}")
    found: dict[str, list[float]] = {}
    for _ in range(draws):
        seed = rng.choice(level.seeds)
        ended = [_as_ended(table, level, seed, point, quarter, i) for i, point in enumerate(_draw_points(table, rng))]
        done = [t for t in ended if t.completed]
        if not done:
            continue
        ideal = judge[max((t.point for t in done), key=lambda p: clean[p])]
        losses = {"raw": ideal - judge[min(done, key=_best_first).point]}
        for key, loss in (losses | confirmation_gains(level, ended, "b", quarter=quarter)).items():
            found.setdefault(key, []).append(loss)
    if "confirm_1" in found:
        found["second"] = np.subtract(found["confirm_2"], found["confirm_1"]).tolist()
    return {
        "num_val": level.num_val // 4 if quarter else level.num_val,
        **{k: float(np.mean(v)) for k, v in found.items()},
        **{f"{k}_error": float(np.std(v) / math.sqrt(len(v))) for k, v in found.items()},
    }


def _draw_points(table: Table, rng: random.Random, trials: int = 24) -> list[Point]:
    shares = {"ce": trials // 4, "positive": trials // 4, "negative": trials - 2 * (trials // 4)}
    found = []
    for arm, count in shares.items():
        mine = [
            i for i, r in enumerate(table.rates) if (r > 0) - (r < 0) == {"ce": 0, "positive": 1, "negative": -1}[arm]
        ]
        points = [(i, w, lr) for i in mine for w in range(len(table.warmups)) for lr in range(len(table.lrs))]
        found += rng.sample(points, min(count, len(points)))
    return found


def _as_ended(table: Table, level: Level, seed: int, point: Point, quarter: bool, order: int) -> Ended:
    curve = level.curves[seed][point]
    best = curve.objective(table.epochs, quarter=quarter)
    return Ended(0.0, level.name, point, seed, None if best is None else best[1], not curve.diverged, order)


def describe(rows: Sequence[dict[str, float]], rng: np.random.Generator) -> dict[str, Any]:
    """Return the median of every number with a 95 % bootstrap interval."""
    found: dict[str, Any] = {"seeds": len(rows)}
    draws = rng.integers(0, len(rows), (2000, len(rows)))
    for key in rows[0]:
        values = np.array([row[key] for row in rows])
        with np.errstate(invalid="ignore"):
            medians = np.median(values[draws], axis=1)
            low, high = (float(x) for x in np.quantile(medians, [0.025, 0.975], method="nearest"))
        found[key] = {"median": float(np.median(values)), "interval": [low, high], "mean": float(np.mean(values))}
    return found


def show(title: str, rows: dict[str, dict[str, Any]]) -> None:
    """Print medians, regrets in points."""
    print(f"\n{title}")
    keys = [*(f"regret_at_{b}" for b in BUDGETS), "regret_at_end"]
    print(f"{'':34}" + "".join(f"{k.removeprefix('regret_'):>16}" for k in keys) + f"{'epochs':>8}{'until close':>22}")
    for name, row in rows.items():
        cells = []
        for key in keys:
            low, high = (100 * x for x in row[key]["interval"])
            cells.append(f"{100 * row[key]['median']:.2f} [{low:.2f},{high:.2f}]")
        close = row["epochs_until_close"]
        until = f"{close['median']:.0f} [{close['interval'][0]:.0f},{close['interval'][1]:.0f}]"
        print(f"{name:34}" + "".join(f"{c:>16}" for c in cells) + f"{row['epochs']['median']:8.0f}{until:>22}")


def readme_table(evidence: dict[str, Any]) -> list[str]:
    """Return the table of README: median regret at 200 and 400 epochs a level, and epochs until it stays close."""
    names = [name for name in NAMES if name in evidence]
    lines = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for method in METHODS:
        cells = []
        for name in names:
            row = evidence[name]["methods"][method]
            regrets = ", ".join(f"{100 * row[f'regret_at_{budget}']['median']:.2f}" for budget in (200, 400))
            until = row["epochs_until_close"]["median"]
            cells.append(f"{regrets}; –" if until is None else f"{regrets}; {until:.0f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return lines


def merged(name: str, rows: dict[str, Any], commit: str | None, kept: dict[str, Any]) -> dict[str, Any]:
    """Return a table's rows with those of earlier evidence that were not replayed again.

    Args:
        name: The table's name.
        rows: The rows that were replayed, by method.
        commit: What replayed them.
        kept: The earlier evidence; empty without one.

    Returns:
        The rows of the methods that there still are, each with the commit that replayed it.
    """
    earlier = kept.get(name, {}).get("methods", {})
    found = {method: {"git_commit": kept.get("git_commit"), **row} for method, row in earlier.items()}
    found |= {method: {**row, "git_commit": commit} for method, row in rows.items()}
    return {method: found[method] for method in ALL if method in found}


def main() -> None:
    """Replay everything, print the tables and write the evidence."""
    from nls_tune.machine.provenance import provenance

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", nargs="+", default=list(NAMES))
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--half", choices=["a", "b"], default="b", help="test samples that judge")
    parser.add_argument(
        "--only", nargs="+", choices=ALL, metavar="NAME", help="replay these alone; the other rows of --out stay"
    )
    parser.add_argument("--no-selection", action="store_true", help="leave out what noisy validation costs")
    parser.add_argument("--draws", type=int, default=200, help="sets of trials for the cost of noisy validation")
    parser.add_argument("--out", type=Path, default=EVIDENCE / "search_efficiency.json")
    options = parser.parse_args()
    wanted, rng, source = options.only or ALL, np.random.default_rng(0), provenance()
    kept = json.loads(options.out.read_text(encoding="utf-8")) if options.only and options.out.exists() else {}
    evidence = {key: kept[key] for key in (*NAMES, "twonorm_seeds", "selection") if key in kept}
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for name in options.names:
            tasks = [(name, method, seed, options.half) for method in wanted for seed in range(options.seeds)]
            results = list(pool.map(one, tasks, chunksize=5))
            rows = {
                method: describe([r for t, r in zip(tasks, results, strict=True) if t[1] == method], rng)
                for method in wanted
            }
            evidence[name] = {
                "epochs_a_level_of_the_grid": table_of(name).size * table_of(name).epochs,
                "methods": merged(name, rows, source["git_commit"], kept),
            }
            show(f"{name}: median regret in points of test accuracy, by epochs a level", rows)
        if not options.only and (FOLDER / "twonorm_seeds.parquet").exists():
            rows = {}
            for seeds in (1, 3):
                tasks = [(seeds, seed, options.half) for seed in range(options.seeds)]
                rows[f"{seeds} seed{'s' if seeds > 1 else ''}"] = describe(list(pool.map(warm_seed_regret, tasks)), rng)
            evidence["twonorm_seeds"] = rows
            show("twonorm, trials of one search from 1 or 3 seeds", rows)
        if not options.no_selection:
            evidence["selection"] = _selection_table(pool, options.names, options.draws)
    content = {
        "what": "searches replayed on tabulated trainings; regret as a fraction, medians over seeds, 95 % bootstrap",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **source,
        "half": options.half,
        **evidence,
    }
    options.out.write_text(json.dumps(_finite(content), indent=1) + "\n", encoding="utf-8")


def _finite(content: Any) -> Any:
    """JSON has no infinity: what never came is null."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _selection_table(pool: ProcessPoolExecutor, names: Sequence[str], draws: int) -> list[dict[str, Any]]:
    extra = [n for n in ("cifar10", "cifar10n") if (FOLDER / f"{n}.parquet").exists()]
    tasks = [
        (n, lv.name, quarter, draws) for n in [*names, *extra] for lv in table_of(n).levels for quarter in (False, True)
    ]
    rows = [
        {"dataset": t[0], "noise_level": t[1], **r}
        for t, r in zip(tasks, pool.map(selection_regret, tasks), strict=True)
    ]
    print("\nWhat choosing by noisy validation costs, and what confirmation gains, in points of test accuracy (s.e.)")
    columns = {"raw": "raw best", "confirm_1": "confirm 1", "confirm_2": "confirm 2", "second": "the second"}
    print(f"{'dataset':12}{'noise level':16}{'validation':>11}" + "".join(f"{name:>16}" for name in columns.values()))
    for r in rows:
        cells = [f"{100 * r[k]:+.2f} ({100 * r[f'{k}_error']:.2f})" if k in r else "-" for k in columns]
        print(f"{r['dataset']:12}{r['noise_level']:16}{r['num_val']:11}" + "".join(f"{cell:>16}" for cell in cells))
    return rows


if __name__ == "__main__":
    main()
