"""What the user asked a search for: plain data, checked. The command line has a flag for each field."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen  # pydantic takes the same, and --help need not wait for it

from nls_tune.allocation.samplers import SamplerName
from nls_tune.errors import InputError, unknown_name
from nls_tune.metrics import Objective

#: Ray counts in ten-thousandths: with more it cannot tell N trials per GPU from N + 1.
MAX_TRIALS_PER_GPU = 99
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)\s*([smh]?)", re.IGNORECASE | re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds of a duration: ``90s``, ``30m``, ``2h``, ``1.5h``, or plain seconds.

    Raises:
        InputError: If the text is not a duration, or the duration is not above 0.
    """
    match = _DURATION.fullmatch(text.strip())
    seconds = float(match[1]) * _UNITS[match[2].lower()] if match else 0.0
    if not 0 < seconds < math.inf:
        raise InputError(
            f"a duration must be above 0 and be written like 90s, 30m, 1.5h or plain seconds, got {text!r}"
        )
    return seconds


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _seconds(value: Any) -> Any:
    return parse_duration(value) if isinstance(value, str) else value


def _trials_per_gpu(value: Any) -> int:
    count = int(value) if isinstance(value, str) and value.strip().isdecimal() else value
    if type(count) is not int or not 1 <= count <= MAX_TRIALS_PER_GPU:
        raise InputError(f"must be a whole number from 1 to {MAX_TRIALS_PER_GPU}, got {value!r}")
    return count


@dataclass(frozen=True)
class Flag:
    """The flag of a field: ``read`` turns what was given, on the command line text, into the field's value.

    By default its ``name`` is ``--`` and the field's, and its ``metavar`` in the help the field's type.
    """

    help: str
    metavar: str | None = None
    read: Callable[[Any], Any] | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What the user asked for, made by ``check_search_settings``; the flags say what the fields mean.

    None means: take it from the dataset or the search space.
    """

    dataset: Annotated[str, Flag("Name of the dataset.")] = "twonorm"
    noise: Annotated[
        tuple[str, ...] | None,
        Flag(
            "Noise levels, comma-separated: clean, symmetric:0.4, pairflip:0.3, asymmetric:0.3, instance:0.4, "
            "matrix:FILE, human:worst. By default those of the dataset.",
            read=_split,
        ),
    ] = None
    space: Annotated[str | None, Flag("Shipped search space or YAML file. By default the dataset's own.")] = None
    preset: Annotated[
        Literal["auto", "gpu", "cpu"], Flag("Preset of the space: gpu, cpu, or auto (gpu where there is one).")
    ] = "auto"
    overrides: Annotated[
        tuple[str, ...],
        Flag(
            "Fix a setting (optimizer=adamw) or change a key of the space (lr.low=1e-5, budget.grace_epochs=4). "
            "May be repeated.",
            metavar="KEY=VALUE",
            name="--set",
        ),
    ] = ()
    num_trials: Annotated[int | None, Ge(1), Flag("Trials per noise level, start points and all arms included.")] = None
    time_budget: Annotated[
        float | None, Gt(0), Lt(math.inf),
        Flag(
            "Wall time of the search, over all sessions of the run: 90s, 30m, 1.5h. The search ends with this time or "
            "with its trials, whichever comes first; the confirmation follows.",
            metavar="DURATION",
            read=_seconds,
        ),
    ] = None  # fmt: skip
    level_weight: Annotated[
        tuple[str, ...],
        Flag(
            "Trials of a noise level relative to the others: 2 gives it twice as many. May be repeated.",
            metavar="LEVEL=WEIGHT",
        ),
    ] = ()
    warm_start: Annotated[
        Path | None,
        Flag(
            "An earlier run: the configurations that were selected there, at the nearest noise level, are tried early.",
            metavar="RUN",
        ),
    ] = None
    epochs: Annotated[int | None, Ge(1), Flag("Epochs per trial, warm-up included.")] = None
    train_size: Annotated[int | None, Ge(1), Flag("Training samples to use.")] = None
    confirm_seeds: Annotated[
        int | None, Ge(0), Le(20),
        Flag("Fresh seeds with which the winners and CE are trained again; 0 turns the confirmation off."),
    ] = None  # fmt: skip
    confirm_on: Annotated[
        Literal["split", "all"],
        Flag("split, or all: train the confirmed configurations again on all labels, validation samples included."),
    ] = "split"
    noise_draws: Annotated[
        bool, Flag("Draw synthetic noise anew for every fresh seed of the confirmation.")
    ] = False  # fmt: skip
    val_fraction: Annotated[
        float | None, Gt(0), Lt(1), Flag("Share of the labelled samples held out for validation (noisy labels).")
    ] = None
    noise_seed: Annotated[int, Ge(0), Lt(2**32), Flag("Seed of synthetic noise.")] = 0
    seed: Annotated[int, Ge(0), Lt(2**32), Flag("Seed of training, split and search.")] = 0
    objective: Annotated[Objective, Flag("Epoch that counts: best or last.")] = "best"
    sampler: Annotated[
        SamplerName, Flag("Where configurations come from: tpe, random, gp, cmaes, grid (spaces of choices).")
    ] = "tpe"
    scheduler: Annotated[Literal["asha", "none"], Flag("asha, or none: every trial runs to its end.")] = "asha"
    estimate_noise: Annotated[
        bool | None,
        Flag("Estimate the noise from the noisy labels before the trials. By default where the true noise is unknown."),
    ] = None
    data_dir: Annotated[
        Path | None, Flag("Folder of data files. By default $NLS_TUNE_DATA, else the user's cache.")
    ] = None
    out: Annotated[Path | None, Flag("Run directory; an unfinished one is resumed. [runs/DATASET-TIME]")] = None
    trials_per_gpu: Annotated[
        int, Flag(f"Trials that share a GPU, 1 to {MAX_TRIALS_PER_GPU}.", metavar="N", read=_trials_per_gpu)
    ] = 1
    cpus_per_trial: Annotated[int, Ge(1), Flag("CPU threads per trial.")] = 1
    compile: Annotated[
        Literal["auto", "on", "off"],
        Flag("Compile training steps: on, off, or auto: on GPUs, where trials are long enough for compiling to pay."),
    ] = "auto"
    address: Annotated[
        str | None,
        Flag("Existing Ray cluster: HOST:PORT, or auto for the one that runs here. By default Ray starts here."),
    ] = None
    warmup_store: Annotated[
        str | None, MinLen(1),
        Flag(
            "Folder of shared CE warm-ups, which several runs may use; none: no sharing. [OUT/warmups]", metavar="DIR"
        ),
    ] = None  # fmt: skip
    tensorboard: Annotated[
        bool, Flag("Write every trial's curves and hyperparameters to OUT/tensorboard.")
    ] = False  # fmt: skip
    mlflow: Annotated[
        str | None, MinLen(1), Flag("Log every trial to MLflow: its tracking URI, sqlite:///mlflow.db.", metavar="URI")
    ] = None
    wandb: Annotated[
        str | None, MinLen(1), Flag("Log every trial to this project at Weights & Biases.", metavar="PROJECT")
    ] = None


def flags_of_settings() -> dict[str, tuple[Any, Flag]]:
    """Return the type and the flag of each search setting, by name."""
    hints = get_type_hints(SearchSettings, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[-1]) for name, hint in hints.items()}


def check_search_settings(**values: Any) -> SearchSettings:
    """Build search settings from keyword arguments.

    Raises:
        InputError: For an unknown name or a value outside its range.
    """
    from pydantic import TypeAdapter, ValidationError

    from nls_tune.spaces.settings import describe_validation_error

    flags = flags_of_settings()
    for name, value in values.items():
        if name not in flags:
            raise unknown_name("search setting", name, flags)
        if (read := flags[name][1].read) is not None:
            try:
                values[name] = read(value)
            except InputError as error:
                raise InputError(f"--{name.replace('_', '-')}: {error}") from None
    try:
        return TypeAdapter(SearchSettings).validate_python(values)
    except ValidationError as error:
        name, _, rest = describe_validation_error(error).partition(":")
        raise InputError(f"--{name.split('.')[0].replace('_', '-')}:{rest}") from None
