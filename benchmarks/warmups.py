"""Counts the epochs that shared CE warm-ups save, and checks the count by training.

Run ``python benchmarks/warmups.py`` in the repository. The count draws the configurations of whole plans of
``cifar10n`` (GPU settings, default trials, no scheduler) as a search does, for several seeds; nothing is trained and no
data are needed. The check trains every trial of a small plan of Twonorm twice, with the store and without, and compares
metrics, bits and weights.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from nls_tune.allocation.allocator import Allocator, Group
from nls_tune.allocation.asha import Rungs
from nls_tune.machine.provenance import provenance
from nls_tune.noise import noise_cancelling_rate
from nls_tune.plan.plan import USUAL_RATE, make_plan
from nls_tune.plan.settings import check_search_settings
from nls_tune.spaces.reading import load_space
from nls_tune.spaces.space import SearchSpace

#: Share of the epochs that should be saved.
GOAL = 0.35
#: Shares of wrong labels of CIFAR-10N's training set, as its authors publish them.
NOISE_RATES = {"aggre": 0.0901, "random1": 0.1723, "random2": 0.1812, "random3": 0.1764, "worst": 0.4021}


def draw(groups: list[Group[str]], seed: int, sampler: str = "random") -> dict[str, list[dict[str, Any]]]:
    """Return the configurations of a whole plan by group; where results matter, they are random."""
    allocator = Allocator(groups, Rungs(()), seed=seed, sampler=sampler)  # type: ignore[arg-type]
    results = random.Random(seed)
    found: dict[str, list[dict[str, Any]]] = {group.key: [] for group in groups}
    while (suggestion := allocator.ask()) is not None:
        found[suggestion.group].append(suggestion.config)
        allocator.tell(suggestion.number, "completed", results.random(), 1.0)
    return found


def groups_of(space: SearchSpace) -> list[Group[str]]:
    """Return the groups of a plan of CIFAR-10N with all levels."""
    groups = []
    for level, noise_rate in NOISE_RATES.items():
        rates = [0.0, USUAL_RATE, noise_cancelling_rate(noise_rate, 10)]
        for name, quota in space.quotas(space.budget.trials).items():
            arm = space.arm(name)
            groups.append(Group(f"{level}/{name}", arm, quota, arm.start(rates)[:quota], quota))
    return groups


def count(lengths: list[int], epochs: int) -> tuple[int, int]:
    """Return the epochs that trials of one seed and level train without and with the store."""
    return epochs * len(lengths), sum(epochs - length for length in lengths) + max(lengths)


def count_plan(space: SearchSpace, seed: int, sampler: str) -> dict[str, Any]:
    """Count the epochs of one plan: of the search, and with its confirmation, whose winners are drawn."""
    drawn, winners, epochs = draw(groups_of(space), seed, sampler), random.Random(seed), space.budget.epochs
    search, confirmation = [0, 0], [0, 0]
    for level in NOISE_RATES:
        arms = {key: configs for key, configs in drawn.items() if key.startswith(f"{level}/")}
        lengths = [config["warmup_epochs"] for configs in arms.values() for config in configs]
        search = [a + b for a, b in zip(search, count(lengths, epochs), strict=True)]
        selected = [winners.choice(configs) for configs in arms.values()]
        default = space.default(smooth_rate=0.0)
        again = [config["warmup_epochs"] for config in [*selected, *([] if default in selected else [default])]]
        per_seed = count(again, epochs)
        confirmation = [a + space.budget.confirm_seeds * b for a, b in zip(confirmation, per_seed, strict=True)]
    both = [a + b for a, b in zip(search, confirmation, strict=True)]
    return {
        "seed": seed,
        "sampler": sampler,
        "search": {"without": search[0], "with": search[1], "saved": 1 - search[1] / search[0]},
        "search_and_confirmation": {"without": both[0], "with": both[1], "saved": 1 - both[1] / both[0]},
    }


def state_megabytes(model: str) -> float:
    """Return the size of network and SGD's momentum, of which a stored epoch consists but for small change."""
    from nls_tune.training.models import build_model

    network = build_model(model, num_classes=10, input_shape=(3, 32, 32))
    return round(2 * sum(t.numel() * t.element_size() for t in network.state_dict().values()) / 1e6, 1)


def count_plans(num_seeds: int) -> dict[str, Any]:
    """Count the epochs of many plans."""
    space = load_space("cifar10n", preset="gpu")
    plans = [count_plan(space, seed, sampler) for sampler in ("random", "tpe") for seed in range(num_seeds)]

    def spread(part: str) -> dict[str, float]:
        saved = [plan[part]["saved"] for plan in plans]
        return {"mean": statistics.fmean(saved), "smallest": min(saved), "largest": max(saved)}

    shares = {part: spread(part) for part in ("search", "search_and_confirmation")}
    return {
        "space": "cifar10n, preset gpu, scheduler none",
        "levels": list(NOISE_RATES),
        "trials": space.budget.trials * len(NOISE_RATES),
        "epochs": space.budget.epochs,
        "warmup_lengths": space.warmup_lengths(),
        "megabytes_a_stored_epoch": state_megabytes(space.fixed["model"]),
        "share_saved": shares,
        "goal": GOAL,
        "met_on_average": {part: share["mean"] >= GOAL for part, share in shares.items()},
        "met_by_every_plan": {part: share["smallest"] >= GOAL for part, share in shares.items()},
        "plans": plans,
    }


def check_by_training(trials: int, epochs: int) -> dict[str, Any]:
    """Train a small plan with and without the store, one trial after the other."""
    import torch

    from nls_tune.training.data import DeviceData
    from nls_tune.training.training import Training
    from nls_tune.training.warmup import SharedWarmup

    torch.set_num_threads(1)
    settings = check_search_settings(
        noise=("symmetric:0.4",), num_trials=trials, epochs=epochs, train_size=1000, preset="cpu", confirm_seeds=0
    )
    plan = make_plan(settings, 0, progress=False)
    dataset = plan.levels[0].dataset
    data = DeviceData.load(dataset, "cpu")
    configs = [config for found in draw(plan.groups(), 0).values() for config in found]
    trained, seconds, identical = {"without": 0, "with": 0}, {"without": 0.0, "with": 0.0}, True
    with tempfile.TemporaryDirectory() as store:
        for config in configs:
            outcomes = []
            for name, folder in (("without", None), ("with", Path(store))):
                begin = time.perf_counter()
                training = Training(dataset, plan.training_settings(config), data=data)
                warmup = SharedWarmup(folder, training, plan.space.warmup_lengths())
                while not training.finished:
                    if warmup.turn() == "train":
                        training.run_epoch()
                        warmup.trained()
                warmup.close()
                seconds[name] += time.perf_counter() - begin
                trained[name] += training.epoch - training.epochs_reused
                outcomes.append(training.state_dict())
            identical = identical and _same(*outcomes)
    expected = count([config["warmup_epochs"] for config in configs], epochs)
    return {
        "dataset": "twonorm, symmetric:0.4, 1000 training samples, CPU",
        "trials": len(configs),
        "epochs": epochs,
        "trained": trained,
        "counted": dict(zip(trained, expected, strict=True)),
        "counts_agree": tuple(trained.values()) == expected,
        "bit_identical": identical,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two states agree in all but times, memory and what was reused."""
    import torch

    def numbers(state: dict[str, Any]) -> str:
        leave = ("seconds", "peak_memory_bytes")
        return repr([{k: v for k, v in metrics.items() if k not in leave} for metrics in state["history"]])

    bits = all(
        torch.equal(a, b)
        for name in ("val_correct", "test_correct")
        for a, b in zip(one[name], other[name], strict=True)
    )
    weights = all(torch.equal(value, other["model"][name]) for name, value in one["model"].items())
    return numbers(one) == numbers(other) and bits and weights


def show(result: dict[str, Any]) -> None:
    """Print what was found."""
    counted, check = result["counted"], result["checked_by_training"]
    lines = [
        f"{counted['space']}: {counted['trials']} trials of {counted['epochs']} epochs, {len(counted['plans'])} plans"
    ]
    for part, share in counted["share_saved"].items():
        lines.append(
            f"  {part}: {share['mean']:.1%} of the epochs saved ({share['smallest']:.1%} to {share['largest']:.1%}; "
            f"goal {GOAL:.0%})"
        )
    lines.append(
        f"{check['dataset']}: {check['trained']['without']} epochs without the store, "
        f"{check['trained']['with']} with it; counts agree: {check['counts_agree']}, "
        f"bit-identical: {check['bit_identical']}"
    )
    sys.stdout.write("\n".join(lines) + "\n")


def main() -> None:
    """Count, check, print and write the evidence."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5, help="plans for each sampler (default: 5)")
    parser.add_argument("--trials", type=int, default=8, help="trials that are trained (default: 8)")
    parser.add_argument("--epochs", type=int, default=12, help="epochs of each (default: 12)")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "evidence" / "warmups.json",
        help="where the evidence goes (default: benchmarks/evidence/warmups.json)",
    )
    arguments = parser.parse_args()
    result = {
        "what": "epochs trained with and without the store of shared CE warm-ups",
        "date_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        **provenance(),
        "counted": count_plans(arguments.seeds),
        "checked_by_training": check_by_training(arguments.trials, arguments.epochs),
    }
    show(result)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
