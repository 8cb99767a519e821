"""Whole run directories of any size, made up: plausible numbers, no training.

Accuracy is highest at the noise-cancelling rate and a learning rate of 0.003, rises and then falls (memorisation)
over the epochs, and is what the bits of its row say. Parts hold several trials each, which readers do not mind.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nls_tune.analysis.selection import select
from nls_tune.analysis.verdicts import find
from nls_tune.errors import InputError
from nls_tune.noise import noise_cancelling_rate
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import load_run, trial_frame
from nls_tune.runs.run_json import RunJson
from nls_tune.runs.schemas import config_columns, epoch_schema, trial_schema
from nls_tune.spaces.settings import RATE_ARMS, TrainingSettings

BEGIN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_LOW, _HIGH = -8.0, 0.8
_SHARES = {"ce": 0.25, "positive": 0.25, "negative": 0.5}


def write_fake_run(
    path: str | Path,
    *,
    levels: Sequence[str] = ("symmetric:0.2", "symmetric:0.4"),
    trials: int = 20,
    epochs: int = 20,
    num_classes: int = 2,
    num_val: int = 1000,
    num_test: int = 800,
    confirm_seeds: int = 0,
    unfinished: int = 0,
    all_diverged: bool = False,
    dataset: str = "twonorm",
    status: str = "finished",
    seed: int = 0,
    trials_per_part: int = 1,
) -> Path:
    """Write a run into a new folder and return that.

    Args:
        path: The folder.
        levels: Noise levels as stored, at least one; only symmetric ones have a known rate.
        trials: Search trials per level.
        epochs: The length of a full trial, at least 4.
        num_classes: K.
        num_val: Validation samples.
        num_test: Test samples; 0 for no test set.
        confirm_seeds: Fresh seeds of the selected configurations and CE with the defaults.
        unfinished: How many trials per level have epochs and no row: they run, or their process was killed.
        all_diverged: Whether every search trial diverged, without an epoch that counts.
        dataset: The dataset's name.
        status: The status in run.json.
        seed: The seed of everything drawn here.
        trials_per_part: 1 as in a real run; more is much quicker to write.
    """
    run = RunDirectory(path)
    run.create()
    makers = [_Level(name, num_classes, num_val, num_test, epochs, seed + i) for i, name in enumerate(levels)]
    common = {"run_id": f"{dataset}-fake-{seed}", "dataset": dataset, "num_classes": num_classes}
    row_tables, epoch_tables = [], []
    for maker in makers:
        configs = maker.configurations(trials, trials + unfinished)
        made = maker.make(configs, "search", 0, all_diverged)
        rows = maker.rows(made, common)
        row_tables.append(rows.slice(0, trials))
        epoch_tables += maker.epochs_of(made, common)
        chosen = trial_frame(row_tables[-1])
        selected = [select(chosen[chosen["arm"] == arm]) for arm in RATE_ARMS] if confirm_seeds else []
        again = [(row["smooth_rate"], row["warmup_epochs"], row["lr"]) for row in selected if row is not None]
        if again:
            again += [] if maker.default() in again else [maker.default()]
            for fresh in range(1, confirm_seeds + 1):
                made = maker.make(np.array(again), "confirm", fresh, False)
                row_tables.append(maker.rows(made, common))
                epoch_tables += maker.epochs_of(made, common)
    _write_parts(run.trials, pa.concat_tables(row_tables), 1, trials_per_part)
    _write_parts(run.epochs, None, epoch_tables, trials_per_part)
    given = {"levels": levels, "trials": trials, "epochs": epochs, "seed": seed, "status": status}
    content = _run_json(makers, trial_frame(pa.concat_tables(row_tables)), common, **given)
    run.write_json(content)
    if status == "finished":
        content.verdicts = [asdict(verdict) for verdict in find(load_run(run.path)).verdicts]
        run.write_json(content)
    return run.path


def read_raw(run: str | Path) -> dict[str, Any]:
    """Read run.json as plain values."""
    return json.loads((Path(run) / "run.json").read_text(encoding="utf-8"))


def write_raw(run: str | Path, **content: Any) -> None:
    """Write run.json with plain values, which may break its rules; by default a version and a status."""
    content.pop("seal", None)
    text = json.dumps({"schema_version": 1, "status": "finished", **content}, default=str)
    (Path(run) / "run.json").write_text(text, encoding="utf-8")


class _Level:
    """Makes the trials of a noise level."""

    def __init__(self, name: str, num_classes: int, num_val: int, num_test: int, epochs: int, seed: int) -> None:
        kind, _, rate = name.partition(":")
        self.name, self.epochs, self.num_classes = name, epochs, num_classes
        self.noise_rate = float(rate) if kind == "symmetric" else None
        noise = 0.3 if self.noise_rate is None else self.noise_rate
        try:
            cancelling: float | None = noise_cancelling_rate(noise, num_classes)
        except InputError:
            cancelling = None
        self.known_cancelling = None if self.noise_rate is None else cancelling
        self.keep = 1 - noise * num_classes / (num_classes - 1)  # the share by which differences shrink
        self.best = np.clip(-1.0 if cancelling is None else cancelling, _LOW, _HIGH)
        self.random = np.random.default_rng([seed, len(name)])
        self.warmup = max(1, epochs // 10)
        self.difficulty = {"val": self.random.normal(size=num_val), "test": self.random.normal(size=num_test)}

    def default(self) -> tuple[float, int, float]:
        return 0.0, self.warmup, 0.003

    def configurations(self, trials: int, count: int) -> np.ndarray:
        """Rate, warm-up length and learning rate, shape (count, 3); the start points come first in their arms."""
        share = np.array([_SHARES[arm] for arm in RATE_ARMS])
        arms = self.random.permutation(np.repeat(RATE_ARMS, np.ceil(share * max(count, 4)).astype(int)))[:count]
        arms[: min(3, count)] = RATE_ARMS[: min(3, count)]
        shares = {"negative": np.log([1.001, 1 - _LOW]), "positive": np.log([1 - _HIGH, 0.999]), "ce": (0.0, 0.0)}
        rates = np.array([1 - np.exp(self.random.uniform(*shares[arm])) for arm in arms])
        warmups = self.random.integers(0, max(1, self.epochs // 4), count)
        lrs = np.exp(self.random.uniform(np.log(1e-4), np.log(5e-2), count))
        rates[arms == "ce"] = 0.0
        rates[:3] = [0.0, 0.1, min(self.best, -0.01)][:count]
        warmups[:3], lrs[:3] = self.warmup, 0.003
        return np.column_stack([np.round(rates, 6), warmups, np.array([float(f"{lr:.4g}") for lr in lrs])])

    def make(self, configs: np.ndarray, stage: str, seed: int, all_diverged: bool) -> dict[str, Any]:
        """Everything about some trials, as arrays over them, and their curves."""
        n, epoch = len(configs), np.arange(1, self.epochs + 1)
        rates, warmups, lrs = configs[:, 0], configs[:, 1].astype(int), configs[:, 2]
        fit = 0.03 * (np.log1p(-rates) - np.log1p(-self.best)) ** 2 + 0.01 * (np.log(lrs) - np.log(0.003)) ** 2
        top = np.maximum(0.97 - fit, 1 / self.num_classes) + self.random.normal(0, 0.004, n)
        peak = (0.2 + 0.4 * self.random.random(n)) * self.epochs
        rise = 1 - 0.4 * np.exp(-6 * epoch / self.epochs)
        fall = 0.15 * np.maximum(0, epoch - peak[:, None]) / self.epochs
        clean = np.clip(top[:, None] * rise - fall + self.random.normal(0, 0.002, (n, len(epoch))), 0.02, 0.999)
        status, length = np.full(n, "completed", object), np.full(n, self.epochs)
        if stage == "search":
            drawn = np.where(np.arange(n) < 3, 0, self.random.random(n))  # the start points are completed
            status[drawn > 0.55], status[drawn > 0.92] = "stopped", "diverged"
            if all_diverged:
                status[:] = "diverged"
            short = self.random.choice([max(2, self.epochs // 4), max(3, self.epochs // 2)], n)
            length = np.where(status == "completed", self.epochs, short)
        curves = {"val": self.noisy(clean), "test": clean, "train": self.noisy(np.minimum(clean + 0.02, 1))}
        curves = {k: np.round(v * len(self.difficulty.get(k, range(4000)))) for k, v in curves.items()}
        counts = {k: v.astype(int) for k, v in curves.items() if k != "train"}
        smooth = _smoothed(counts["val"] / max(1, len(self.difficulty["val"])), warmups, rates, length)
        best = None if all_diverged and stage == "search" else smooth.argmax(axis=1)
        ids = [hashlib.sha256(f"{self.name} {stage} {seed} {i} {row}".encode()).hexdigest()[:16]
               for i, row in enumerate(configs.tolist())]  # fmt: skip
        return {
            "ids": ids, "stage": stage, "seed": seed, "rates": rates, "warmups": warmups, "lrs": lrs, "status": status,
            "length": length, "counts": counts, "train": curves["train"] / 4000, "smooth": smooth, "best": best,
        }  # fmt: skip

    def noisy(self, clean: np.ndarray) -> np.ndarray:
        """Accuracy on noisy labels of an accuracy on clean ones."""
        return self.keep * clean + (1 - self.keep) / self.num_classes

    def bits(self, split: str, counts: np.ndarray) -> list[bytes]:
        """One bit a sample: the easiest are right, with some luck of each trial."""
        found = []
        for begin in range(0, len(counts), 256):
            some = counts[begin : begin + 256]
            ease = self.difficulty[split] + self.random.normal(0, 0.5, (len(some), len(self.difficulty[split])))
            limits = np.take_along_axis(np.sort(ease, axis=1), np.minimum(some, ease.shape[1] - 1)[:, None], axis=1)
            found += [row.tobytes() for row in np.packbits(ease < limits, axis=1)]
        return found

    def rows(self, made: Mapping[str, Any], common: Mapping[str, Any]) -> pa.Table:
        n, best, length = len(made["ids"]), made["best"], made["length"]
        settings = TrainingSettings(model="mlp", epochs=self.epochs, warmup_epochs=self.warmup)
        columns: dict[str, Any] = {
            name: [value] * n
            for name, value in {**config_columns(settings), **common, "stage": made["stage"], "seed": made["seed"],
                                "noise_level": self.name, "noise_rate": self.noise_rate, "noise_seed": 0,
                                "noise_cancelling_rate": self.known_cancelling, "estimated_noise_rate": None,
                                "error": None, "epochs_reused": 0, "slot": None, "device": "a CPU", "node": "a node",
                                **{f"num_{split}": len(self.difficulty[split]) for split in ("val", "test")}}.items()
        }  # fmt: skip
        columns |= {"trial_id": made["ids"], "arm": arms_of(made["rates"]), "smooth_rate": made["rates"],
                    "warmup_epochs": made["warmups"], "lr": made["lrs"], "status": made["status"],
                    "epochs": length}  # fmt: skip
        columns["best_epoch"] = [None] * n if best is None else best + 1
        columns["best_val_accuracy"] = [None] * n if best is None else made["smooth"][np.arange(n), best]
        for split in ("val", "test"):
            size, counts = len(self.difficulty[split]), made["counts"][split]
            known = size > 0
            columns[f"last_{split}_accuracy"] = counts[np.arange(n), length - 1] / size if known else [None] * n
            at_best = None if best is None or not known else counts[np.arange(n), best]
            columns[f"{split}_correct_at_best"] = [None] * n if at_best is None else self.bits(split, at_best)
            if split == "test":
                columns["test_accuracy_at_best"] = [None] * n if at_best is None else at_best / size
        columns["readout"] = [None if best is None else "plain"] * n
        for name in ("best_epoch", "best_val_accuracy", "test_accuracy_at_best"):
            columns[f"plain_{name}"], columns[f"average_{name}"] = columns[name], [None] * n
        for name in [name for name in columns if "accuracy" in name]:
            for metric, share in OTHER_METRICS.items():
                values = [None if value is None else share * value for value in columns[name]]
                columns[name.replace("accuracy", metric)] = values
        # What is not made: mirror images, the counts by class.
        columns |= {name: [None] * n for name in trial_schema().names if name not in columns and name not in _LAST}
        seconds = 0.05 * length
        begins = np.floor(np.arange(n) / 2) * 0.05 * self.epochs  # two slots
        columns |= {"train_seconds": seconds, "wall_seconds": seconds + 0.1}
        columns["started_at"] = [BEGIN + timedelta(seconds=float(s)) for s in begins]
        columns["finished_at"] = [BEGIN + timedelta(seconds=float(s)) for s in begins + seconds]
        return pa.table({name: columns[name] for name in trial_schema().names}, schema=trial_schema())

    def epochs_of(self, made: Mapping[str, Any], common: Mapping[str, Any]) -> list[pa.Table]:
        """One table a trial: slices of one."""
        length, n = made["length"], len(made["ids"])
        ends = np.cumsum(length)
        of = np.repeat(np.arange(n), length)
        at = np.arange(len(of)) - np.repeat(ends - length, length)
        warm = at < made["warmups"][of]
        val = made["counts"]["val"][of, at] / len(self.difficulty["val"])
        size = len(self.difficulty["test"])
        columns = {
            "run_id": [common["run_id"]] * len(of),
            "trial_id": np.array(made["ids"], object)[of],
            "noise_level": [self.name] * len(of),
            "arm": np.array(arms_of(made["rates"]), object)[of],
            "smooth_rate": made["rates"][of],
            "node": ["a node"] * len(of),
            "device": ["a CPU"] * len(of),
            "epoch": at + 1,
            "phase": np.where(warm, "warmup", "gls").astype(object),
            "lr": np.where(warm, 0.01, made["lrs"][of]),
            "train_loss": 1 - made["train"][of, at],
            "train_accuracy": made["train"][of, at],
            "val_loss": 1 - val,
            "val_accuracy": val,
            "test_accuracy": made["counts"]["test"][of, at] / size if size else [None] * len(of),
            "diverged": (made["status"][of] == "diverged") & (at == length[of] - 1),
            "seconds": np.full(len(of), 0.05),
            "peak_memory_bytes": np.full(len(of), 10**8),
        }
        for metric, share in OTHER_METRICS.items():
            columns[f"val_{metric}"] = share * val
            columns[f"test_{metric}"] = share * columns["test_accuracy"] if size else columns["test_accuracy"]
        columns |= {
            field.name: [[] if pa.types.is_list(field.type) else None] * len(of)
            for field in epoch_schema()
            if field.name not in columns
        }
        table = pa.table({name: columns[name] for name in epoch_schema().names}, schema=epoch_schema())
        return [table.slice(int(end - k), int(k)) for end, k in zip(ends, length, strict=True)]


#: The metrics besides accuracy, as shares of it.
OTHER_METRICS = {"balanced_accuracy": 0.98, "macro_f1": 0.96}
#: The columns that are made last.
_LAST = ("train_seconds", "wall_seconds", "started_at", "finished_at")


def arms_of(rates: np.ndarray) -> list[str]:
    return ["ce" if r == 0 else "positive" if r > 0 else "negative" for r in rates]


def _smoothed(val: np.ndarray, warmups: np.ndarray, rates: np.ndarray, length: np.ndarray) -> np.ndarray:
    """The mean of each epoch that counts and the one before it, -1 elsewhere."""
    at = np.arange(val.shape[1])
    counts = (at < length[:, None]) & ((rates[:, None] == 0) | (at >= warmups[:, None]))
    before = np.concatenate([val[:, :1], val[:, :-1]], axis=1)
    return np.where(counts, (before + val) / 2, -1.0)


def _write_parts(folder: Path, rows: pa.Table | None, tables: Any, trials_per_part: int) -> None:
    if rows is not None:
        tables = [rows.slice(i, 1) for i in range(len(rows))]
    for begin in range(0, len(tables), trials_per_part):
        part = pa.concat_tables(tables[begin : begin + trials_per_part])
        path = folder / f"{part['trial_id'][0].as_py()}.parquet"
        pq.write_table(part, path, use_dictionary=False, write_statistics=False)  # as a search writes them


def _run_json(makers: Sequence[_Level], frame: Any, common: Mapping[str, Any], **given: Any) -> RunJson:
    quotas = {arm: round(share * given["trials"]) for arm, share in _SHARES.items()}
    finished = given["status"] == "finished"
    content = {
        "schema_version": 1,
        "run_id": common["run_id"],
        "status": given["status"],
        "created_at": BEGIN.isoformat(),
        "sessions": [
            {
                "versions": {"python": "3.11.7", "nls-tune": "0.1.0", "torch": "2.14.1"},
                "git_commit": "0" * 40,
                "hardware": {"node": "a node", "cpu": "a CPU", "cpus": 2, "gpus": []},
                "command": "search.py --out fake",
                "started_at": BEGIN.isoformat(),
                "slots": {"count": 2, "cpus_per_trial": 1, "gpus_per_trial": 0.0},
                **({"finished_at": (BEGIN + timedelta(hours=1)).isoformat()} if finished else {}),
            }
        ],
        "identity": {
            "settings": {
                "dataset": common["dataset"], "noise": list(given["levels"]), "noise_seed": 0, "seed": given["seed"],
                "objective": "best", "sampler": "tpe", "scheduler": "asha", "estimate_noise": None,
            },
            "space": {
                "name": common["dataset"],
                "space": {
                    "smooth_rate": {"type": "float", "low": _LOW, "high": _HIGH, "default": -1.0, "scale": "log1m"},
                    "warmup_epochs": {"type": "int", "low": 0, "high": max(1, given["epochs"] // 4),
                                      "default": makers[0].warmup if makers else 1, "step": 1, "scale": "linear"},
                    "lr": {"type": "float", "low": 1e-4, "high": 0.05, "default": 0.003, "scale": "log"},
                },
                "arms": _SHARES,
                "fixed": {"model": "mlp"},
                "start": [],
                "budget": {"trials": given["trials"], "epochs": given["epochs"], "grace_epochs": 6,
                           "reduction_factor": 2.0, "train_size": None},
            },
            "fingerprints": {maker.name: hashlib.sha256(maker.name.encode()).hexdigest() for maker in makers},
        },
        "plan": [
            {
                "noise_level": maker.name,
                "noise_rate": maker.noise_rate,
                "noise_cancelling_rate": maker.known_cancelling,
                "num_train": 4000,
                "num_val": len(maker.difficulty["val"]),
                "trials": quotas,
                "start": {"ce": [dict(zip(("smooth_rate", "warmup_epochs", "lr"), maker.default(), strict=True))]},
                "warm_start": [],
                "estimate": None,
            }
            for maker in makers
        ],
        **({"ended_by": "trials", "search_trials": int((frame["stage"] == "search").sum())} if finished else {}),
    }  # fmt: skip
    return RunJson.model_validate(content)
