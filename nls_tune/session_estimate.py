"""The noise estimates of a session of a search: kept, or made here, or on a GPU of its cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from rich.console import Console

    from nls_tune.cluster import Slots
    from nls_tune.datasets import NoisyDataset
    from nls_tune.noise_estimation import NoiseEstimate
    from nls_tune.plan import LevelPlan, SearchPlan
    from nls_tune.results import RunDirectory
    from nls_tune.settings import TrainingSettings


def with_estimates(
    plan: SearchPlan, run: RunDirectory, content: dict[str, Any], slots: Slots, console: Console
) -> SearchPlan:
    """Complete the plan with the estimates that it needs: from run.json, or made now and written there at once.

    On a cluster with GPUs they are made on one of them: the machine of the command need not have any.

    Args:
        plan: Of the search.
        run: Its directory.
        content: Of run.json.
        slots: What a trial gets.
        console: Where to say what is made.

    Returns:
        The plan with all its estimates.

    Raises:
        InputError: As ``nls_tune.estimate.estimate_noise``.
        RuntimeError: As ``estimate_on_cluster``.
    """
    from nls_tune.noise_estimation import NoiseEstimate
    from nls_tune.report.estimates import print_estimate_line

    on_cluster = plan.settings.address is not None and slots.gpus_per_trial > 0
    known = {facts["noise_level"]: facts.get("estimate") for facts in content["plan"]}
    for level in plan.levels:
        if not level.needs_estimate:
            continue
        if found := known.get(level.level):
            plan = plan.with_estimate(NoiseEstimate.from_json(found))
            continue
        what = f"Estimating the noise of {level.level} from its noisy labels"
        console.print(f"{what}{' on a GPU of the cluster' if on_cluster else ''}", markup=False, highlight=False)
        if on_cluster:
            estimate = estimate_on_cluster(plan, level)
        else:
            from nls_tune.estimate import estimate_level  # needs torch, which a finished run does without

            estimate = estimate_level(plan, level, progress=console.is_terminal)
        plan = plan.with_estimate(estimate)
        content["plan"] = plan.facts()
        run.write_json(content)
        print_estimate_line(estimate, console)
    return plan


def estimate_on_cluster(plan: SearchPlan, level: LevelPlan) -> NoiseEstimate:
    """Estimate the noise of a level as a task in the Ray session that is open, as soon as a GPU is free.

    Args:
        plan: Of the search; its settings say how many CPUs a training has.
        level: One of its levels.

    Returns:
        The estimate; while it is made nothing is said of its progress.

    Raises:
        InputError: As ``nls_tune.estimate.estimate_noise``.
        RuntimeError: If the task is lost, for example with its node.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    settings = plan.training_settings(plan.space.default(smooth_rate=0.0))
    task = cast("Any", ray.remote(_estimate)).options(num_cpus=plan.settings.cpus_per_trial, num_gpus=1)
    estimate = task.remote(level.dataset, settings)
    try:
        return cast("NoiseEstimate", ray.get(estimate))
    except RayTaskError as error:
        raise error.cause from None  # without the traceback of the worker, which Ray makes the message
    except RayError as error:
        raise RuntimeError(
            f"the noise of {level.level} could not be estimated on the cluster ({type(error).__name__}); "
            "run the command again, or with --no-estimate-noise"
        ) from error
    except KeyboardInterrupt:
        # It would keep its GPU. Only here: to cancel a task that has ended can crash Ray 2.60.
        ray.cancel(estimate, force=True)
        raise


def _estimate(dataset: NoisyDataset, settings: TrainingSettings) -> NoiseEstimate:
    from nls_tune.estimate import estimate_noise  # needs torch, which the worker has and the driver does without

    return estimate_noise(dataset, settings)
