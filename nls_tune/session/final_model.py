"""The network to take home: the recommended configuration of a noise level, trained on all labels and saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nls_tune.datasets import NoisyDataset
from nls_tune.datasets.progress import show_progress
from nls_tune.errors import InputError
from nls_tune.files import remove_abandoned, write_atomically
from nls_tune.machine.provenance import provenance
from nls_tune.metrics import METRICS, Judging
from nls_tune.report.model_card import model_card
from nls_tune.report.words import verdict_words
from nls_tune.runs.checkpoint import TrialCheckpoint
from nls_tune.runs.saved_model import CARD, FACTS, WEIGHTS, SavedModel, read_saved_model, read_weights
from nls_tune.runs.schemas import ON_ALL_LABELS, trial_id
from nls_tune.runs.trial_spec import TrialSpec
from nls_tune.session.answer import Answer, Recommended

if TYPE_CHECKING:
    from nls_tune.training.training import Training

_CHECKPOINT = "checkpoint"


@dataclass(frozen=True)
class FinalModel:
    """A network that was saved in a folder; ``was_there`` says that it had been trained before."""

    folder: Path
    saved: SavedModel
    was_there: bool


def train_answer(answer: Answer, folder: Path, *, say: Callable[[str], None], progress: bool = True) -> FinalModel:
    """Train what a run recommends at a noise level, and save network, facts and model card.

    It trains on the labels of training and validation together, to the epoch that a confirmation on all labels ends at.
    Where the warm-up returns to its best epoch, which held-out labels decide, it trains on the training split alone.
    A training that was interrupted goes on from its checkpoint in the folder. ``say`` is called with each line to show.

    Raises:
        InputError: The verdict recommends nothing, or the folder holds another model or cannot be written.
        RuntimeError: The training diverges.
    """
    from nls_tune.training.devices import default_device
    from nls_tune.training.final import train_to_the_end

    chosen = answer.recommended
    if chosen is None:
        headline = verdict_words(answer.verdict).headline
        raise InputError(f"{answer.level}: {headline.rstrip('.')}, so there is nothing to train")
    needs_split = chosen.settings.warmup_from == "best" and chosen.settings.warmup_epochs > 0
    dataset = answer.dataset if needs_split else answer.dataset.on_all_labels()
    spec = _spec(dataset, chosen)
    if (there := _read_there(folder, spec)) is not None:
        return FinalModel(folder, there, was_there=True)
    settings = chosen.settings
    say(
        f"Training {settings.model} on {dataset.num_train:,} labels of {dataset.name}, {answer.level}: "
        f"{settings.loss_text()}, warm-up {settings.warmup_epochs}, lr {settings.lr:g}, {chosen.stop_at} epochs"
    )
    checkpoint, device = TrialCheckpoint(folder / _CHECKPOINT), default_device()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_abandoned(folder)
        with show_progress(progress, f"{settings.model}: epochs", chosen.stop_at) as report:
            training = train_to_the_end(
                dataset, spec, checkpoint, device, report=report, say=say, judging=Judging(metric=answer.verdict.metric)
            )
        saved = _save(answer, dataset, chosen, training, folder, spec)
    except PermissionError as error:
        raise InputError(f"--out must be a place that can be written, {folder} is not ({error.strerror})") from None
    checkpoint.remove()
    return FinalModel(folder, saved, was_there=False)


def _spec(dataset: NoisyDataset, chosen: Recommended) -> TrialSpec:
    level = dataset.noise_level
    name = trial_id(dataset.fingerprint, level, dataset.noise_seed, chosen.settings, ON_ALL_LABELS)
    return TrialSpec(name, level, ON_ALL_LABELS, chosen.settings, stop_at=chosen.stop_at)


def _read_there(folder: Path, spec: TrialSpec) -> SavedModel | None:
    """Return the model that a folder holds, if it is the one that is wanted; InputError: the folder holds another."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out must be a folder, {folder} is a file; give another place")
    if not (folder / FACTS).exists():
        ours = {WEIGHTS, CARD, _CHECKPOINT}
        others = [p.name for p in folder.iterdir() if p.name not in ours] if folder.is_dir() else []
        if any(not name.startswith(".") for name in others):
            raise InputError(f"--out must be empty or hold a model, {folder} does neither; give another place")
        return None
    saved = read_saved_model(folder)
    if (saved.trial_id, saved.epochs) != (spec.trial_id, spec.last_epoch):
        raise InputError(f"{folder} holds a model of other data or settings; give another --out, or remove it")
    read_weights(folder, saved)
    return saved


def _save(
    answer: Answer, dataset: NoisyDataset, chosen: Recommended, training: Training, folder: Path, spec: TrialSpec
) -> SavedModel:
    """Write weights, model card and, as a last file that makes the model complete, ``model.json``."""
    from nls_tune.training.devices import device_name
    from nls_tune.training.evaluation import Judged
    from nls_tune.training.final import final_weights
    from nls_tune.training.predictor import Predictor, load_network, weights_of

    weights = weights_of(final_weights(training, chosen.readout))
    saved = SavedModel(
        model=chosen.settings.model,
        num_classes=dataset.num_classes,
        input_shape=dataset.input_shape,
        class_names=answer.class_names,
        mean=tuple(dataset.input_mean.tolist()),
        std=tuple(dataset.input_std.tolist()),
        test_labels="clean" if answer.own is None or answer.own.test_clean else "given",
        preprocessing=None if answer.own is None else dict(answer.own.preprocessing),
        precision=training.precision,
        settings=chosen.settings.model_dump(mode="json"),
        epochs=chosen.stop_at,
        readout=chosen.readout,
        trained_on="training" if dataset is answer.dataset else "all",
        num_samples=dataset.num_train,
        dataset=dataset.name,
        noise_level=answer.level,
        noise_rate=dataset.noise_rate,
        run_id=answer.run.content.run_id,
        trial_id=spec.trial_id,
        finding=answer.verdict.finding,
        verdict=verdict_words(answer.verdict).headline,
        versions=provenance()["versions"],
        device=device_name(training.device),
        weights_sha256=hashlib.sha256(weights).hexdigest(),
    )
    if dataset.test_inputs is not None and dataset.test_labels is not None:
        # By the network that is on disk, in the way in which ``predict`` uses it.
        predictor = Predictor(saved, load_network(saved, weights, WEIGHTS), training.device)
        judged = Judged.of(
            predictor.predict(dataset.test_inputs, prepared=True), dataset.test_labels, dataset.num_classes
        )
        found = {f"test_{metric}": judged.scores.of(metric) for metric in METRICS}
        saved = saved.model_copy(update={"num_test": judged.num_samples, **found})
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CARD, model_card(saved, answer.verdict).encode())
    write_atomically(folder / FACTS, saved.text().encode())
    return saved
