"""The answer of a run at one noise level, ready to be used: its data, and the configuration to train."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from nls_tune.analysis.choices import Choice
from nls_tune.analysis.rows import have_settings
from nls_tune.analysis.verdicts import Verdict, find
from nls_tune.datasets import NoisyDataset, Source, load_own, load_source, make_noisy
from nls_tune.datasets.class_names import class_names
from nls_tune.datasets.source import OwnFacts
from nls_tune.errors import InputError, unknown_name
from nls_tune.losses.registry import loss_info
from nls_tune.noise import parse_noise_level
from nls_tune.noise.confident_learning import NoiseEstimate
from nls_tune.plan.settings import SearchSettings, check_search_settings
from nls_tune.plan.transition import matrix_of
from nls_tune.runs.directory import RunDirectory
from nls_tune.runs.reading import Run, load_run, load_trials
from nls_tune.runs.run_json import RunJson
from nls_tune.runs.schemas import settings_of
from nls_tune.runs.storage.opening import is_url
from nls_tune.session.continuing import settings_of_run
from nls_tune.spaces.settings import TrainingSettings
from nls_tune.spaces.space import SearchSpace

#: What decides the data of a run, of the settings that every run.json holds.
_OF_DATA = ("dataset", "noise_seed", "seed", "test_size")
#: The settings that say where a user's own data lie.
_PLACES = ("images", "table", "arrays")
#: Settings that may hold a password, which run.json does not keep and nothing here needs.
_WITHOUT = {"address": None, "storage": None, "mlflow": None, "wandb": None}


class Recommended(NamedTuple):
    """A configuration to train: its settings, the epoch after which to stop, and the weights to use."""

    settings: TrainingSettings
    stop_at: int
    readout: str


@dataclass(frozen=True, eq=False)
class Answer:
    """What a run says at one noise level, and the data that it was searched on.

    ``recommended`` is None where the verdict recommends nothing; ``default_ce`` is cross-entropy with the defaults of
    the run's space. ``class_names`` are None where the classes have none, and ``own`` is None for built-in data.
    ``folder_before`` is what the current folder was: relative paths of data are those of the folder in which the search
    ran.
    """

    run: Run
    verdict: Verdict
    dataset: NoisyDataset
    class_names: tuple[str, ...] | None
    recommended: Recommended | None
    default_ce: TrainingSettings
    folder_before: Path
    own: OwnFacts | None = None

    @property
    def level(self) -> str:
        """The noise level in its stored spelling."""
        return self.verdict.noise_level

    def folder(self, name: str) -> Path:
        """Return the folder that holds what is made of the answer by default: in the run, or here if that has a URL."""
        place = self.run.path if self.run.url is None else self.folder_before
        return place / name / re.sub(r"[^\w.-]+", "-", self.level)


def load_answer(path: str | Path, level: str | None = None, given: Mapping[str, Any] | None = None) -> Answer:
    """Read a run and load the data of one of its noise levels, by default of the only one.

    Args:
        path: The run directory, or the URL of a run.
        level: The noise level.
        given: Settings that say where the data lie now.

    Raises:
        InputError: The folder is not a run, has no verdict at this level, or its data cannot be had as they were.
    """
    folder_before = Path.cwd()
    run = load_run(path) if is_url(path) else load_trials(path)
    name = _level_of(run, level)
    verdict = next((found for found in find(run).verdicts if found.noise_level == name), None)
    if verdict is None:
        raise InputError(f"{run.place} has no ended trial at {name}; go on with the search first")
    settings = _settings_of(run, given or {})
    source = _load_source(run, settings)
    dataset = _make_dataset(run, settings, source, name)
    recommended = None if verdict.use is None else _recommended(run, name, verdict.use, settings.seed)
    space = SearchSpace.model_validate(run.content.identity.space.model_dump())
    return Answer(
        run=run,
        verdict=verdict,
        dataset=dataset if recommended is None else _with_matrix(run.content, dataset, recommended.settings),
        class_names=class_names(dataset.name) if source.own is None else source.own.class_names,
        recommended=recommended,
        default_ce=space.settings(space.default(smooth_rate=0.0), seed=settings.seed),
        folder_before=folder_before,
        own=source.own,
    )


def _level_of(run: Run, level: str | None) -> str:
    if level is None:
        if len(run.levels) != 1:
            raise InputError(f"--level must name one of the noise levels of {run.place}: {', '.join(run.levels)}")
        return run.levels[0]
    names = (level, _spelling(level))
    found = next((name for name in names if name in run.levels), None)
    if found is None:
        raise unknown_name("noise level of this run", level, run.levels)
    return found


def _spelling(level: str) -> str:
    try:
        return str(parse_noise_level(level))
    except InputError:
        return level


def _settings_of(run: Run, given: Mapping[str, Any]) -> SearchSettings:
    """Return the settings that say what the data are; runs of version 0.1 have them in their identity alone."""
    if run.content.data is None and (flags := [f"--{name}" for name in _PLACES if name in given]):
        raise InputError(f"{run.place} is of a built-in dataset, {flags[0]} is for data of your own; leave it out")
    session = next((one for one in reversed(run.content.sessions) if one.settings is not None), None)
    if session is not None and session.data_in_memory:
        raise InputError(
            f"the data of {run.place} were given in memory, from Python, and no file holds them; save them, and search "
            "that file"
        )
    if session is not None:
        return settings_of_run(RunDirectory(run.path), {**_WITHOUT, **given})
    known = {name: run.content.identity.settings.get(name) for name in _OF_DATA}
    return check_search_settings(**{name: value for name, value in known.items() if value is not None}, **given)


def _load_source(run: Run, settings: SearchSettings) -> Source:
    if settings.data is None:
        source = load_source(settings.dataset, data_dir=settings.data_dir)
    else:
        source = load_own(settings.data, split_seed=settings.seed, val_fraction=settings.val_fraction)
    return source if settings.test_size is None else source.with_test_size(settings.test_size, settings.seed)


def _make_dataset(run: Run, settings: SearchSettings, source: Source, level: str) -> NoisyDataset:
    # Not by a plan of this machine: its preset may be another one than that of the run.
    dataset = make_noisy(
        source,
        parse_noise_level(level),
        noise_seed=settings.noise_seed,
        val_fraction=settings.val_fraction,
        train_size=_train_size(run.content),
        split_seed=settings.seed,
    )
    expected = run.content.identity.fingerprints.get(level)
    if expected not in (None, dataset.fingerprint):
        flags = "--data-dir" if source.own is None else "--images, --table or --arrays"
        raise InputError(
            f"the data of {run.place} at {level} are not what they were (their fingerprint differs); give the ones "
            f"that were searched on, with {flags} if they lie elsewhere"
        )
    return dataset


def _with_matrix(content: RunJson, dataset: NoisyDataset, settings: TrainingSettings) -> NoisyDataset:
    """Return a dataset with the transition matrix that its trials had, if the loss to train with needs one."""
    if loss_info(settings.loss).needs != "matrix":
        return dataset
    estimate = next((facts.estimate for facts in content.plan if facts.noise_level == dataset.noise_level), None)
    known = None if estimate is None else NoiseEstimate.from_json(estimate)
    return replace(dataset, transition=matrix_of(settings.transition, dataset, known))


def _train_size(content: RunJson) -> int | None:
    size = content.identity.space.budget.get("train_size")
    return size if isinstance(size, int) else None


def _recommended(run: Run, level: str, use: Choice, seed: int) -> Recommended:
    """Return a choice with all settings of its trials, as it is to be trained on all labels."""
    trials = run.trials[run.trials["noise_level"] == level]
    rows = trials[have_settings(trials, use.config)]
    settings = settings_of(rows.iloc[0].to_dict()).model_copy(update={"seed": seed})
    return Recommended(settings, settings.epochs if use.best_epoch is None else use.best_epoch, use.readout)
