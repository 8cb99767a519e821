"""How long an epoch takes: as the run has measured it, or as a short trial of this machine says."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean

from nls_tune.machine.provenance import cpu_name
from nls_tune.plan.plan import EpochTime, SearchPlan
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import read_trials
from nls_tune.spaces.space import setting_values

#: Images to train on, epoch by epoch, from which on a search is worth a trial of the machine.
_LONG_SEARCH = 500_000
_PATIENCE_SECONDS = 120


def measured_epoch(plan: SearchPlan, run: RunDirectory) -> EpochTime | None:
    """Return what an epoch took so far in the run; None if none ran there with the plan's data and models."""
    if not run.run_json.exists() or all(r.num_train != plan.levels[0].dataset.num_train for r in run.read_json().plan):
        return None
    trials = read_trials(run.path)
    models = setting_values(plan.space, "model")
    trials["trained"] = trials["epochs"] - trials["epochs_reused"]
    alike = (trials["dataset"] == plan.info.name) & trials["config_model"].isin(models) & (trials["trained"] > 0)
    if not alike.any():
        return None
    device = str(trials.loc[alike, "device"].iloc[-1])
    sums = trials.loc[alike & (trials["device"] == device), ["train_seconds", "trained"]].sum()
    return EpochTime(float(sums["train_seconds"] / sums["trained"]), device)


def probed_epoch(plan: SearchPlan, slots: int, threads: int) -> EpochTime | None:
    """Return what an epoch of the default configuration is going to take on the CPUs of this machine, by trying it.

    As many processes try as trials will run at once, because they slow one another. None where a search is too short
    for that or trains a last layer on features, or the machine does not answer.
    """
    settings, dataset = plan.training_settings(plan.space.default()), plan.levels[0].dataset
    if settings.trains_on_features:
        return None
    if len(dataset.input_shape) != 3 or plan.num_trials * settings.epochs * dataset.num_train < _LONG_SEARCH:
        return None
    question = json.dumps(
        {
            "settings": settings.model_dump(mode="json"),
            "num_classes": dataset.num_classes,
            "input_shape": dataset.input_shape,
            "threads": threads,
        }
    )

    def ask(_: int) -> dict[str, float]:
        command = [sys.executable, "-P", "-m", "nls_tune.training.speed_probe"]
        done = subprocess.run(  # noqa: S603 - our own program
            command, input=question, capture_output=True, text=True, timeout=_PATIENCE_SECONDS, check=True
        )
        answer: dict[str, float] = json.loads(done.stdout.strip().rpartition("\n")[2])
        return answer

    try:
        with ThreadPoolExecutor(slots) as pool:
            answers = list(pool.map(ask, range(slots)))
    except (OSError, subprocess.SubprocessError, ValueError):
        return None  # what is wrong shows when the trials start
    evaluated = dataset.num_val + (0 if dataset.test_labels is None else len(dataset.test_labels))
    seconds = [answer["train"] * dataset.num_train + answer["evaluate"] * evaluated for answer in answers]
    return EpochTime(fmean(seconds), cpu_name())
