"""Estimates of the noise as tasks of a Ray cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from nls_tune.datasets import NoisyDataset
    from nls_tune.noise.confident_learning import NoiseEstimate
    from nls_tune.plan.level import LevelPlan
    from nls_tune.plan.plan import SearchPlan
    from nls_tune.spaces.settings import TrainingSettings


def estimate_on_cluster(plan: SearchPlan, level: LevelPlan) -> NoiseEstimate:
    """Estimate the noise of a level as a task in the Ray session that is open, as soon as a GPU is free.

    No progress is shown meanwhile.

    Raises:
        InputError: As ``nls_tune.training.estimate.estimate_noise``.
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
    from nls_tune.training.estimate import estimate_noise  # torch, which the driver does without

    return estimate_noise(dataset, settings)
