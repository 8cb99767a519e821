"""One Tune experiment: what it runs, where it writes, whom it tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nls_tune.metrics import Judging
from nls_tune.plan.models import import_paths
from nls_tune.report.text import amount, duration
from nls_tune.runs.trial_spec import DataName
from nls_tune.training.report import METRIC
from nls_tune.tune.cluster_head import end_at_once, watched_cluster
from nls_tune.tune.interrupts import Interrupts
from nls_tune.tune.preflight import PATIENCE_SECONDS
from nls_tune.tune.shared import on_every_node
from nls_tune.tune.starting import watched_head
from nls_tune.tune.work import Work

if TYPE_CHECKING:
    from nls_tune.tune.adapters import TrialSearcher, WorkerSavingScheduler
    from nls_tune.tune.attendant import Attendant
    from nls_tune.tune.recorder import Recorder
    from nls_tune.tune.trainable import SharedInputs


def run_experiment(
    work: Work,
    recorder: Recorder,
    searcher: TrialSearcher,
    scheduler: WorkerSavingScheduler,
    *,
    warmup_epochs: Sequence[int],
    names: Collection[DataName],
) -> None:
    """Run one Tune experiment, as many trials as the searcher has, or until Ctrl-C.

    The trials need the datasets ``names``. ``warmup_epochs`` are the lengths of warm-ups that they can ask for; these
    are stored and shared. Trials that still run at the end are written as interrupted.

    Raises:
        InterruptedAgainError: If Ctrl-C was pressed more than once; what ran is saved all the same.
        OSError: If results could not be written.
    """
    from ray import tune

    from nls_tune.tune.recorder import EndOnError, WhenReady

    hangs = partial(end_at_once, recorder, work)
    with Interrupts(recorder.note_end) as interrupts, watched_head(interrupts.ray_died, hangs):
        tuner = tune.Tuner(
            _trainable(work, warmup_epochs, names),
            tune_config=tune.TuneConfig(
                metric=METRIC,
                mode="max",
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=-1,  # the searcher knows
                max_concurrent_trials=work.packing.slots.count,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                # A name of its own: Tune mixes two experiments of one name without a word.
                name=f"{datetime.now(UTC):%Y%m%dT%H%M%S.%f}",
                storage_path=str(work.run.tune),
                callbacks=[recorder, _attendant(work, recorder), WhenReady(interrupts.tune_is_ready)],
                stop=EndOnError(recorder),
                # Trials keep their own checkpoints in the run directory.
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
                verbose=0,
            ),
        )
        recorder.view.start()
        try:
            with watched_cluster(interrupts.ray_died, hangs):
                tuner.fit()
        except KeyboardInterrupt:
            if interrupts.died is not None:
                _leave_ray(recorder, interrupts.died)
            raise
        finally:
            _end(recorder, work)
    if recorder.error is not None:
        raise recorder.error


def _end(recorder: Recorder, work: Work) -> None:
    """Write the trials that still run as interrupted, and say what was lost."""
    recorder.view.stop()
    recorder.interrupt()
    if epochs := work.lost.epochs:
        what = f"{amount(epochs, 'epoch')}, {duration(work.lost.seconds)}"
        recorder.view.warn(f"trials that lost their process trained again what no saved state had: {what}")


def _leave_ray(recorder: Recorder, died: str) -> None:
    """Save what ran, and shut down what is left of Ray: what Tune leaves behind would wait a minute for its head."""
    import ray

    recorder.note_end()
    recorder.view.warn(f"{died}; the trials that ran go on from their last checkpoint")
    recorder.interrupt()
    ray.shutdown()


def _attendant(work: Work, recorder: Recorder) -> Attendant:
    from nls_tune.tune.attendant import Attendant, cluster_resources

    settings = work.plan.settings
    return Attendant(
        work.lost,
        work.packing.slots,
        settings.trial_timeout,
        recorder.view.warn,
        None if settings.address is None else cluster_resources,
    )


def _travelling(inputs: SharedInputs, on_cluster: bool) -> SharedInputs:
    """Return the inputs, mapped images in memory where not every node of a cluster has their file."""
    from nls_tune.datasets.mapped import MappedImages
    from nls_tune.tune.trainable import SharedInputs

    images, test = inputs
    if not on_cluster or not isinstance(images, MappedImages):
        return inputs
    if not any(answer for *_, answer in on_every_node(_lacks, PATIENCE_SECONDS, str(images.file))):
        return inputs
    return SharedInputs(np.asarray(images), None if test is None else np.asarray(test))


def _lacks(node: str, file: str) -> str:
    return "" if Path(file).is_file() else "lacks it"


def _trainable(work: Work, warmup_epochs: Sequence[int], names: Collection[DataName]) -> Any:
    from ray import tune

    from nls_tune.tune.trainable import SharedInputs, SharedSettings, TrainingTrainable

    plan, slots = work.plan, work.packing.slots
    # The datasets share their inputs: those travel once per node, the labels of each dataset on their own.
    first = plan.levels[0].dataset
    inputs = _travelling(SharedInputs(first.inputs, first.test_inputs), plan.settings.address is not None)
    datasets = {
        name: dataclasses.replace(work.data.load(name), inputs=first.inputs[:0], test_inputs=None) for name in names
    }
    shared = SharedSettings(
        judging=Judging(plan.settings.objective, plan.settings.tta == "mirror", plan.settings.metric),
        use_gpu=slots.gpus_per_trial > 0,
        checkpoints=work.run.checkpoints,
        cpus_per_trial=slots.cpus_per_trial,
        trials_per_gpu=slots.trials_per_gpu,
        compile=plan.settings.compile,
        warmup_store=(warmups := plan.warmup_store(work.run)),
        warmup_epochs=tuple(warmup_epochs),
        storage=work.store.url if work.store is not None and plan.settings.keeps_states_in_storage else None,
        node_warmups=work.run_id if warmups is not None and plan.settings.has_warmups_per_node else None,
        import_paths=import_paths(),
    )
    return tune.with_resources(
        tune.with_parameters(TrainingTrainable, inputs=inputs, datasets=datasets, shared=shared),
        {"cpu": slots.cpus_per_trial, "gpu": slots.gpus_per_trial},
    )
