"""Measures what a trial costs besides its training, beside the two loops that people write themselves.

Run ``python benchmarks/overhead.py`` in the repository on an idle machine; it takes about 4 minutes on 2 cores.

* The same trainings in a search, in a plain function trainable of Ray Tune (no reuse of actors, which is its default)
  and in one process with Optuna: the time from the start of a trial to the next start in its slot, less its training;
* how long the data of the size of CIFAR-10 takes to reach a trial in a process that is used again;
* how much of a default search goes into writing checkpoints, warm-ups and results: every function that writes is timed
  from outside, in the trials and in the driver.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from ray import tune
from throughput import random_images

from nls_tune import run_search
from nls_tune.datasets import NoisyDataset, load_dataset
from nls_tune.errors import InputError
from nls_tune.machine.provenance import provenance
from nls_tune.runs import checkpoint as trial_checkpoint
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_trials
from nls_tune.runs.trial_spec import DataName, TrialSpec
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.training import warmup
from nls_tune.training.data import DeviceData
from nls_tune.training.training import Training
from nls_tune.tune import trainable
from nls_tune.tune.adapters import ListSearcher
from nls_tune.tune.recorder import Recorder
from nls_tune.tune.starting import ray_session
from nls_tune.tune.trainable import SharedInputs, SharedSettings, TrainingTrainable

LEVEL = "symmetric:0.4"


def overheads(trials: pd.DataFrame, slots: int) -> list[float]:
    """Return the seconds from a trial's start to the next start in its slot, less its training; one per pair.

    Rows name no slot: a trial takes the place of the one that ended last before it started.

    Args:
        trials: Columns ``started_at``, ``finished_at`` and ``train_seconds``.
        slots: Trials that ran at once.
    """
    found, free = [], []
    for row in trials.sort_values("started_at").itertuples():
        before = [other for other in free if other.finished_at <= row.started_at]
        if before:
            last = max(before, key=lambda other: other.finished_at)
            free.remove(last)
            found.append((row.started_at - last.started_at).total_seconds() - last.train_seconds)
        free.append(row)
    if len(found) < len(trials) - slots:
        raise ValueError(f"{len(trials)} trials on {slots} slots must follow one another, {len(found)} do")
    return found


# The same trainings in three ways


def in_a_search(num_trials: int, epochs: int) -> pd.DataFrame:
    """Run our own search without what would change the trainings: no scheduler, no shared warm-ups."""
    with tempfile.TemporaryDirectory() as folder:
        run_search(
            noise=LEVEL, num_trials=num_trials, epochs=epochs, scheduler="none", warmup_store="none", confirm_seeds=0,
            out=Path(folder) / "run",
        )  # fmt: skip
        return read_trials(Path(folder) / "run")


def settings_of(rate: float, lr: float, epochs: int) -> TrainingSettings:
    """Return a configuration of the Twonorm space with the epochs of the comparison."""
    return TrainingSettings(
        model="mlp", epochs=epochs, smooth_rate=rate, lr=lr, warmup_lr=0.01, weight_decay=0.05, precision="float32"
    )


def train(dataset: NoisyDataset, settings: TrainingSettings, data: DeviceData | None = None) -> Training:
    """Train one configuration to its end."""
    training = Training(dataset, settings, data=data)
    while not training.finished:
        training.run_epoch()
    return training


class _Times(tune.Callback):
    """Notes when trials start and end, as our own recorder does."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        self.rows[trial.trial_id] = {"started_at": pd.Timestamp.now("UTC")}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: object) -> None:
        seconds = trial.last_result["train_seconds"]
        self.rows[trial.trial_id].update(finished_at=pd.Timestamp.now("UTC"), train_seconds=seconds)


def in_a_function_trainable(num_trials: int, epochs: int, slots: int) -> pd.DataFrame:
    """Run a function trainable with Tune's defaults, data through the object store."""
    times = _Times()

    def function(config: dict[str, Any], dataset: NoisyDataset) -> None:
        torch.set_num_threads(1)
        training = train(dataset, settings_of(config["rate"], config["lr"], epochs))
        seconds = sum(m.seconds for m in training.history)
        tune.report({"accuracy": max([0.0, *training.curve()]), "train_seconds": seconds})

    with tempfile.TemporaryDirectory() as folder, ray_session(None):
        dataset = load_dataset("twonorm", LEVEL, noise_seed=0, split_seed=0)
        tune.Tuner(
            tune.with_resources(tune.with_parameters(function, dataset=dataset), {"cpu": 1}),
            param_space={"rate": tune.uniform(-8, 0.8), "lr": tune.loguniform(1e-4, 1e-1)},
            tune_config=tune.TuneConfig(
                metric="accuracy", mode="max", num_samples=num_trials, max_concurrent_trials=slots
            ),
            run_config=tune.RunConfig(storage_path=folder, callbacks=[times], verbose=0),
        ).fit()
    return pd.DataFrame(times.rows.values())


def in_one_process(num_trials: int, epochs: int) -> pd.DataFrame:
    """Let Optuna call the training directly."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    dataset = load_dataset("twonorm", LEVEL, noise_seed=0, split_seed=0)
    data, rows = DeviceData.load(dataset, "cpu"), []

    def objective(trial: optuna.Trial) -> float:
        started_at = pd.Timestamp.now("UTC")
        rate, lr = trial.suggest_float("rate", -8, 0.8), trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        training = train(dataset, settings_of(rate, lr, epochs), data)
        seconds = sum(m.seconds for m in training.history)
        rows.append({"started_at": started_at, "finished_at": pd.Timestamp.now("UTC"), "train_seconds": seconds})
        return max([0.0, *training.curve()])

    optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0)).optimize(
        objective, n_trials=num_trials
    )
    return pd.DataFrame(rows)


def compare(num_trials: int, epochs: int, slots: int) -> dict[str, dict[str, float]]:
    """Run all three and return their overheads."""
    ways: dict[str, tuple[Callable[[], pd.DataFrame], int]] = {
        "nls_tune": (lambda: in_a_search(num_trials, epochs), slots),
        "function trainable": (lambda: in_a_function_trainable(num_trials, epochs, slots), slots),
        "Optuna in one process": (lambda: in_one_process(num_trials, epochs), 1),
    }
    found = {}
    for name, (way, used) in ways.items():
        trials = way()
        seconds = overheads(trials, used)
        low, middle, high = np.quantile(seconds, [0.1, 0.5, 0.9])
        found[name] = {
            "trials": len(trials),
            "slots": used,
            "train_seconds": float(trials["train_seconds"].median()),
            "overhead_seconds": float(middle),
            "overhead_seconds_p10": float(low),
            "overhead_seconds_p90": float(high),
        }
        print(name, json.dumps(found[name]), flush=True)
    return found


# Data to a reused trial


class _Arrival(TrainingTrainable):
    """A trial that only gets ready, and says how long that took."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        start = time.perf_counter()
        super().setup(config, **shared)
        self._arrival = {"seconds": time.perf_counter() - start, "kind": "new process"}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        before, start = self._cached[0], time.perf_counter()
        super().reset_config(new_config)
        kind = "same level" if new_config["noise_level"] == before.noise_level else "another level"
        self._arrival = {"seconds": time.perf_counter() - start, "kind": kind}
        return True

    def step(self) -> dict[str, Any]:
        return {"best_val_accuracy": 0.0, "done": True, **self._arrival}


def _levels_of_images() -> tuple[str, dict[str, NoisyDataset]]:
    """CIFAR-10 with two levels of noise; random images of its size where there is no CIFAR-10."""
    levels = ("symmetric:0.2", "symmetric:0.4")
    try:
        return "cifar10", {level: load_dataset("cifar10", level, noise_seed=0, split_seed=0) for level in levels}
    except InputError:
        images = random_images(45_000, num_test=5_000)
        rng = np.random.default_rng(1)
        return "random", {
            level: replace(images, noise_level=level, noisy_labels=rng.permutation(images.noisy_labels))
            for level in levels
        }


def data_to_trials(num_trials: int) -> dict[str, Any]:
    """Send trials of two levels through one process and time what is between two of them, network included."""
    name, datasets = _levels_of_images()
    first = next(iter(datasets.values()))
    levels = list(datasets)
    order = [levels[(k // 2) % 2] for k in range(num_trials)]  # A A B B A A ...: as many stay as change
    with tempfile.TemporaryDirectory() as folder, ray_session(None):
        settings = TrainingSettings(model="small_cnn")
        configs = [TrialSpec(str(k), level, "search", settings).to_config() for k, level in enumerate(order)]
        shared = SharedSettings(
            objective="best", use_gpu=torch.cuda.is_available(), checkpoints=Path(folder), cpus_per_trial=1
        )
        labels_only = {
            DataName(level): replace(d, inputs=d.inputs[:0], test_inputs=None) for level, d in datasets.items()
        }
        inputs = SharedInputs(first.inputs, first.test_inputs)
        results = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_Arrival, inputs=inputs, datasets=labels_only, shared=shared),
                {"cpu": 1, "gpu": int(shared.use_gpu)},
            ),
            tune_config=tune.TuneConfig(
                metric="best_val_accuracy", mode="max", num_samples=num_trials, max_concurrent_trials=1,
                reuse_actors=True, search_alg=ListSearcher(configs, metric="best_val_accuracy"),
            ),
            run_config=tune.RunConfig(
                storage_path=folder, verbose=0, checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False)
            ),
        ).fit()  # fmt: skip
    rows = [result.metrics for result in results]
    seconds: dict[str, list[float]] = {}
    for row in rows:
        seconds.setdefault(row["kind"], []).append(row["seconds"])
    megabytes = (first.inputs.nbytes + (0 if first.test_inputs is None else first.test_inputs.nbytes)) / 1e6
    medians = {kind: statistics.median(values) for kind, values in seconds.items()}
    return {"dataset": name, "megabytes": megabytes, "seconds": seconds, "median": medians}


# What writing costs


class _Stopwatch:
    """Seconds spent inside functions that call one another or not."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._depth = 0

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            self._depth += 1
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

        return wrapper

    @contextmanager
    def watch(self, targets: dict[str, list[tuple[Any, str]]]) -> Any:
        """Time methods, by what they write, while the block runs."""
        patches = [
            mock.patch.object(owner, method, self.timed(name, getattr(owner, method)))
            for name, methods in targets.items()
            for owner, method in methods
        ]
        for patch in patches:
            patch.start()
        try:
            yield
        finally:
            for patch in patches:
                patch.stop()


class _Watched(TrainingTrainable):
    """A trial whose writing is timed; what it took since the last report goes with the report."""

    def setup(self, config: dict[str, Any], **shared: Any) -> None:
        self._watch = _Stopwatch()
        checkpoint = [(trial_checkpoint.TrialCheckpoint, name) for name in ("start", "save")]
        self._patches = self._watch.watch(
            {"checkpoints": checkpoint, "warm-ups": [(warmup.SharedWarmup, "_store"), (warmup.SharedWarmup, "_take")]}
        )
        self._patches.__enter__()  # for as long as the process lives
        super().setup(config, **shared)

    def step(self) -> dict[str, Any]:
        report = super().step()
        written, self._watch.seconds = self._watch.seconds, {}
        return {**report, "written": written}


def share_of_writing(out: Path, **options: Any) -> dict[str, Any]:
    """Run a search and say how much of its trials' time and of its own time writing takes."""
    worker: dict[str, float] = {}
    receive = Recorder.on_trial_result

    def on_trial_result(self: Recorder, *args: Any, result: dict[str, Any], **info: Any) -> None:
        for name, seconds in result["written"].items():
            worker[name] = worker.get(name, 0.0) + seconds
        receive(self, *args, result=result, **info)

    driver = _Stopwatch()
    methods = [(RunDirectory, name) for name in ("write_trial", "write_epochs", "write_json")]
    with (
        mock.patch.object(trainable, "TrainingTrainable", _Watched),
        mock.patch.object(Recorder, "on_trial_result", on_trial_result),
        driver.watch({"results": methods, "checkpoints": [(trial_checkpoint.TrialCheckpoint, "remove")]}),
    ):
        run_search(out=out, **options)
    trials = read_trials(out)
    slots = json.loads((out / "run.json").read_text(encoding="utf-8"))["sessions"][0]["slots"]["count"]
    slot_seconds = slots * (trials["finished_at"].max() - trials["started_at"].min()).total_seconds()
    # While the driver writes, any slot may have to wait for it: its seconds count for all of them.
    share = (sum(worker.values()) + slots * sum(driver.seconds.values())) / slot_seconds
    return {
        "trials": len(trials), "slots": slots, "slot_seconds": slot_seconds, "in_trials_seconds": worker,
        "in_driver_seconds": driver.seconds, "share": share,
    }  # fmt: skip


def readme_table(evidence: dict[str, Any]) -> list[str]:
    """Return README's table of the evidence."""
    lines = ["| per trial | seconds besides its training, median (10 to 90 %) | training |", "|---|---|---|"]
    for name, row in evidence["overhead"].items():
        spread = f"{row['overhead_seconds_p10']:.3f} to {row['overhead_seconds_p90']:.3f}"
        lines.append(f"| {name} | {row['overhead_seconds']:.3f} ({spread}) | {row['train_seconds']:.2f} s |")
    return lines


def _print(evidence: dict[str, Any]) -> None:
    rows, data, written = evidence["overhead"], evidence["data"], evidence["writing"]
    print("\n".join(readme_table(evidence)))
    ratio = rows["function trainable"]["overhead_seconds"] / rows["nls_tune"]["overhead_seconds"]
    print(f"{ratio:.1f} times less than the function trainable")
    for kind, seconds in data["median"].items():
        print(f"{data['dataset']}, {data['megabytes']:.0f} MB, to a trial, {kind}: {1000 * seconds:.1f} ms")
    print(f"writing in a search of {written['trials']} trials: {100 * written['share']:.2f} % of the slots' time")


def main() -> None:
    """Measure, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=40, help="trials of the comparison, each way")
    parser.add_argument("--epochs", type=int, default=20, help="epochs per trial of the comparison")
    parser.add_argument("--data-trials", type=int, default=24, help="trials that only get their data")
    parser.add_argument("--default-trials", type=int, help="trials per level of the default search; by default its own")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "evidence" / "overhead.json")
    options = parser.parse_args()
    slots = len(os.sched_getaffinity(0))
    torch.set_num_threads(1)
    evidence = {
        "what": "seconds of a trial besides its training; data to a reused trial; share of writing",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "overhead": compare(options.trials, options.epochs, slots),
        "data": data_to_trials(options.data_trials),
    }
    with tempfile.TemporaryDirectory() as folder:
        extra = {} if options.default_trials is None else {"num_trials": options.default_trials}
        evidence["writing"] = share_of_writing(Path(folder) / "run", **extra)
    options.out.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    _print(evidence)


if __name__ == "__main__":
    main()
