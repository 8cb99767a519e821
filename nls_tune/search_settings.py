"""What the user asked a search for: plain data, checked."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nls_tune.errors import InputError, unknown_name
from nls_tune.metrics import Objective
from nls_tune.samplers import SamplerName
from nls_tune.settings import describe_validation_error


class SearchSettings(BaseModel):
    """What the user asked for; None means: take it from the dataset or the search space.

    Attributes:
        dataset: Name of a dataset.
        noise: Noise levels.
        space: Name of a shipped search space or a YAML file; by default the dataset's own.
        preset: Preset of the space; ``auto`` takes ``gpu`` where there is one.
        overrides: ``KEY=VALUE`` changes of the space.
        num_trials: Trials a level.
        epochs: Epochs a trial.
        train_size: Training samples.
        confirm_seeds: Fresh seeds with which the selected configurations and CE are trained again; 0 for none.
        val_fraction: Share of the labelled samples held out, with noisy labels, for validation.
        noise_seed: Seeds synthetic noise.
        seed: Seeds training, split and search.
        objective: ``best`` or ``last`` epoch.
        sampler: Where configurations come from: ``tpe``, ``random``, ``gp``, ``cmaes``, or ``grid``, which runs every
            point of a space of choices once.
        scheduler: ``asha``, or ``none``: every trial runs to its end.
        estimate_noise: Whether the noise is estimated from the noisy labels before the trials; None: at levels whose
            true noise is unknown.
        data_dir: Where data files are looked for first.
        out: Run directory.
        trials_per_gpu: Trials that share a GPU.
        cpus_per_trial: CPU threads a trial.
        address: Of an existing Ray cluster.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    dataset: str = "twonorm"
    noise: tuple[str, ...] | None = None
    space: str | None = None
    preset: Literal["auto", "gpu", "cpu"] = "auto"
    overrides: tuple[str, ...] = ()
    num_trials: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[int, Field(ge=1)] | None = None
    train_size: Annotated[int, Field(ge=1)] | None = None
    confirm_seeds: Annotated[int, Field(ge=0, le=20)] | None = None
    val_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    noise_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    objective: Objective = "best"
    sampler: SamplerName = "tpe"
    scheduler: Literal["asha", "none"] = "asha"
    estimate_noise: bool | None = None
    data_dir: Path | None = None
    out: Path | None = None
    trials_per_gpu: Annotated[int, Field(ge=1)] = 1
    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    address: str | None = None


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
