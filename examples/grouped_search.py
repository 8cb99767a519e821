"""Searches two problems at once with any Ray Tune function: scores are compared inside a group only.

One problem scores up to 1 and is cheap, the other up to 1000 and costs three times as much. One ASHA over both would
stop every trial of the first; here each group has an Optuna study and an ASHA of its own, and a slot goes to the group
that has had the least time for its share. The example has nothing to do with label smoothing.

python examples/grouped_search.py
"""

from __future__ import annotations

import argparse
import math
import os
import tempfile
import time

import ray
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from ray import tune

from nls_tune.allocation.allocator import Allocator, Group
from nls_tune.allocation.asha import Rungs
from nls_tune.allocation.distributions import DistributionSpace
from nls_tune.tune.adapters import AllocationScheduler, AllocationSearcher, Reading

STEPS = 9
PROBLEMS = {"cheap": {"scale": 1.0, "seconds": 0.01}, "dear": {"scale": 1000.0, "seconds": 0.03}}


def train(config: dict) -> None:
    """An ordinary Tune function: it reports a score, larger is better, and a clock that the rungs count in."""
    problem = PROBLEMS[config["group"]]
    quality = 1 / (1 + (math.log10(config["lr"]) + 2) ** 2) * (1.0 if config["optimizer"] == "adam" else 0.8)
    for step in range(1, STEPS + 1):
        time.sleep(problem["seconds"])
        tune.report({"score": problem["scale"] * quality * (1 - math.exp(-step / 3)), "step": step})


def read(report: dict) -> Reading:
    """Say what a report means: its clock and its score, which always counts, the time so far, and how it ended."""
    outcome = "completed" if report["step"] == STEPS else "stopped"
    return Reading(report["step"], report["score"], True, report["time_total_s"], outcome)


def main() -> None:
    """Search both problems in one experiment, then print what each group got and found."""
    parser = argparse.ArgumentParser(description="Search two problems of different scale and cost at once.")
    parser.add_argument("--num-trials", type=int, default=12, help="Trials per problem.")
    num_trials = parser.parse_args().num_trials

    space = DistributionSpace(
        lr=FloatDistribution(1e-5, 1.0, log=True), optimizer=CategoricalDistribution(["adam", "sgd"])
    )
    start = ({"lr": 1e-3, "optimizer": "sgd"},)  # tried first, in every group
    groups = [Group(name, space, num_trials, start) for name in PROBLEMS]
    allocator = Allocator(groups, Rungs.geometric(grace=1, longest=STEPS, reduction_factor=3), seed=0)
    searcher = AllocationSearcher(
        allocator,
        lambda suggestion: {"group": suggestion.group, **suggestion.config},  # what the function gets
        read,
        metric="score",
    )
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Tune's own table does not know groups
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as folder:
        tune.Tuner(
            train,
            tune_config=tune.TuneConfig(
                metric="score",
                mode="max",
                search_alg=searcher,
                scheduler=AllocationScheduler(searcher),
                num_samples=allocator.num_left(),
                max_concurrent_trials=2,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        ).fit()
    for group in groups:
        study = allocator.study(group.key)
        stopped = sum(trial.state is TrialState.PRUNED for trial in study.trials)
        best = study.best_trial
        print(
            f"{group.key}: {len(study.trials)} trials, {stopped} stopped early, "
            f"best score {best.value:.3g} with lr {best.params['lr']:.2g} and {best.params['optimizer']}"
        )


if __name__ == "__main__":
    main()
