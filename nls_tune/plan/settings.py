"""What the user asked a search for: plain data, checked."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nls_tune.allocation.samplers import SamplerName
from nls_tune.errors import InputError, unknown_name
from nls_tune.metrics import Objective
from nls_tune.spaces.settings import describe_validation_error

#: Ray counts in ten-thousandths: with more it cannot tell N trials on a GPU from N + 1.
MAX_TRIALS_PER_GPU = 99


class SearchSettings(BaseModel):
    """What the user asked for; None means: take it from the dataset or the search space.

    Attributes:
        dataset: Name of a dataset.
        noise: Noise levels.
        space: Name of a shipped search space or a YAML file; by default the dataset's own.
        preset: Preset of the space; ``auto`` takes ``gpu`` where there is one.
        overrides: ``KEY=VALUE`` changes of the space.
        num_trials: Trials a level.
        time_budget: Wall seconds of the search, over all sessions of the run; also as text, ``90s``, ``30m``, ``2h``.
        level_weight: ``LEVEL=WEIGHT``: a level of weight 2 gets twice the trials of one of weight 1, the default.
        warm_start: Directory of an earlier run whose selected configurations become start points.
        epochs: Epochs a trial.
        train_size: Training samples.
        confirm_seeds: Fresh seeds with which the selected configurations and CE are trained again; 0 for none.
        confirm_on: ``split``: the confirmation trains on the training samples, like the search. ``all``: afterwards it
            also trains on all labelled samples of the run, validation samples included.
        noise_draws: Whether every fresh seed of the confirmation also gets a draw of synthetic noise of its own.
        val_fraction: Share of the labelled samples held out, with noisy labels, for validation.
        noise_seed: Seeds synthetic noise.
        seed: Seeds training, split and search.
        objective: ``best`` or ``last`` epoch.
        transfer: Whether a noise level tries early what is best at others so far.
        sampler: Where configurations come from: ``tpe``, ``random``, ``gp``, ``cmaes``, or ``grid``, which runs every
            point of a space of choices once.
        scheduler: ``asha``, or ``none``: every trial runs to its end.
        estimate_noise: Whether the noise is estimated from the noisy labels before the trials; None: at levels whose
            true noise is unknown.
        data_dir: Where data files are looked for first.
        out: Run directory.
        trials_per_gpu: Trials that share a GPU, at most 99; ``auto`` measures how many are fastest together.
        cpus_per_trial: CPU threads a trial.
        compile: Whether training steps are compiled: ``on``, ``off``, or ``auto``, on GPUs where trials are long.
        vectorize: Whether the confirmation trains trials of a small network in batches, as one model.
        address: Of an existing Ray cluster.
        warmup_store: Folder of shared CE warm-ups, which several runs may use; by default one in the run directory
            that is removed when the run is finished; ``none`` for none.
        tensorboard: Whether every trial's curves and hyperparameters go to ``tensorboard/`` in the run directory.
        mlflow: Tracking URI of MLflow, where every trial becomes a run.
        wandb: Project at Weights & Biases, where every trial becomes a run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str = "twonorm"
    noise: tuple[str, ...] | None = None
    space: str | None = None
    preset: Literal["auto", "gpu", "cpu"] = "auto"
    overrides: tuple[str, ...] = ()
    num_trials: Annotated[int, Field(ge=1)] | None = None
    time_budget: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    level_weight: tuple[str, ...] = ()
    warm_start: Path | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None
    train_size: Annotated[int, Field(ge=1)] | None = None
    confirm_seeds: Annotated[int, Field(ge=0, le=20)] | None = None
    confirm_on: Literal["split", "all"] = "split"
    noise_draws: bool = False
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    noise_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    objective: Objective = "best"
    transfer: bool = False
    sampler: SamplerName = "tpe"
    scheduler: Literal["asha", "none"] = "asha"
    estimate_noise: bool | None = None
    data_dir: Path | None = None
    out: Path | None = None
    trials_per_gpu: int | Literal["auto"] = 1
    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    compile: Literal["auto", "on", "off"] = "auto"
    vectorize: bool = False
    address: str | None = None
    warmup_store: Annotated[str, Field(min_length=1)] | None = None
    tensorboard: bool = False
    mlflow: Annotated[str, Field(min_length=1)] | None = None
    wandb: Annotated[str, Field(min_length=1)] | None = None

    @field_validator("trials_per_gpu", mode="before")
    @classmethod
    def _parse_trials_per_gpu(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "auto":
            value = int(value) if value.strip().isdecimal() else value
        if value != "auto" and (type(value) is not int or not 1 <= value <= MAX_TRIALS_PER_GPU):
            raise ValueError(f"must be a whole number from 1 to {MAX_TRIALS_PER_GPU}, or auto")
        return value

    @field_validator("time_budget", mode="before")
    @classmethod
    def _parse_time_budget(cls, value: Any) -> Any:
        return parse_duration(value) if isinstance(value, str) else value


def check_search_settings(**values: Any) -> SearchSettings:
    """Build search settings from keyword arguments.

    Raises:
        InputError: For an unknown name or a value outside its range.
    """
    for name in values:
        if name not in SearchSettings.model_fields:
            raise unknown_name("search setting", name, SearchSettings.model_fields)
    try:
        return SearchSettings(**values)
    except ValidationError as error:
        message = describe_validation_error(error)
        flag, _, rest = message.partition(":")
        raise InputError(f"--{flag.split('.')[0].replace('_', '-')}:{rest}") from None


_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}


_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", re.IGNORECASE | re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration: ``90s``, ``30m``, ``2h``, ``1.5h``, or plain seconds.

    Raises:
        InputError: If it is none, or not above 0.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if not 0 < seconds < math.inf:
        raise InputError(
            f"a duration must be above 0 and be written like 90s, 30m, 1.5h or plain seconds, got {text!r}"
        )
    return seconds
