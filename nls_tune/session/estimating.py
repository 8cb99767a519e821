"""The noise estimates of a session of a search: kept, or made here, or on a GPU of its cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nls_tune.datasets.progress import show_progress
from nls_tune.noise.confident_learning import DEFAULT_FOLDS, NoiseEstimate

if TYPE_CHECKING:
    from rich.console import Console

    from nls_tune.plan.level import LevelPlan
    from nls_tune.plan.plan import SearchPlan
    from nls_tune.runs.directory import RunDirectory
    from nls_tune.runs.run_json import RunJson
    from nls_tune.tune.cluster import Slots


def with_estimates(plan: SearchPlan, run: RunDirectory, content: RunJson, slots: Slots, console: Console) -> SearchPlan:
    """Complete the plan with the estimates that it needs: from run.json, or made now and written there at once.

    On a cluster with GPUs they are made on one of them: the machine of the command need not have any.

    Raises:
        InputError: As ``nls_tune.training.estimate.estimate_noise``.
        RuntimeError: As ``estimate_on_cluster``.
    """
    from nls_tune.report.console.estimates import print_estimate_line
    from nls_tune.tune.estimating import estimate_on_cluster

    on_cluster = plan.settings.address is not None and slots.gpus_per_trial > 0
    known = {facts.noise_level: facts.estimate for facts in content.plan}
    for level in plan.levels:
        if not level.needs_estimate or level.estimate is not None:
            continue
        if found := known.get(level.level):
            plan = plan.with_estimate(NoiseEstimate.from_json(found))
            continue
        what = f"Estimating the noise of {level.level} from its noisy labels"
        console.print(f"{what}{' on a GPU of the cluster' if on_cluster else ''}", markup=False, highlight=False)
        if on_cluster:
            estimate = estimate_on_cluster(plan, level)
        else:
            estimate = estimate_level(plan, level, progress=console.is_terminal)
        plan = plan.with_estimate(estimate)
        content.plan = plan.run_levels()
        run.write_json(content)
        print_estimate_line(estimate, console)
    return plan


def estimate_level(
    plan: SearchPlan, level: LevelPlan, *, folds: int = DEFAULT_FOLDS, progress: bool = True
) -> NoiseEstimate:
    """Estimate the noise of a level of a search with cross-entropy at the defaults of its space.

    There are 2 to 20 ``folds``. With ``progress`` a bar is shown on stderr if that is a terminal.

    Raises:
        InputError: As ``estimate_noise``.
    """
    from nls_tune.training.estimate import estimate_noise  # torch, which the process of a search does without

    settings = plan.training_settings(plan.space.default(smooth_rate=0.0))
    total = folds * settings.epochs
    with show_progress(progress, f"Noise of {level.level}: epochs of {folds} models", total) as report:
        return estimate_noise(level.dataset, settings, folds=folds, report=report)
