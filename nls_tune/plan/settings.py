"""The settings of a search: plain data, checked. The command line has a flag for each field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from annotated_types import Ge, Gt, Le, Lt, MinLen  # pydantic takes the same, and --help need not wait for it

from nls_tune.allocation.samplers import SamplerName
from nls_tune.errors import InputError, unknown_name
from nls_tune.metrics import Metric, Objective
from nls_tune.plan.flag import (
    MAX_TRIALS_PER_GPU,
    PANELS,
    Flag,
    read_list,
    read_methods,
    read_seconds,
    read_trials_per_gpu,
)

if TYPE_CHECKING:
    from nls_tune.datasets.data import Data

_WHAT, _OWN, _BUDGET, _WHERE, _RESULTS, _ADVANCED = PANELS
#: The settings that say what a user's own data are.
DATA_SETTINGS = (
    "images", "table", "arrays", "label", "annotators", "features", "drop", "image_size", "val", "val_clean", "test",
    "clean_labels", "group", "skip_unreadable",
)  # fmt: skip


def _side(text: str | None) -> float | Path | None:
    """Return the share that a text gives, else a path."""
    try:
        return text if text is None else float(text)
    except ValueError:
        return Path(str(text))


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """The user's settings, made by ``check_search_settings``; the flags say what the fields mean.

    None means: take it from the dataset or the search space.
    """

    dataset: Annotated[
        str,
        Flag(
            "Name of the dataset: digits, twonorm, waveform, cifar10, cifar100, cifar10n, cifar100n. "
            "By default digits.",
            _WHAT,
        ),
    ] = "digits"
    noise: Annotated[
        tuple[str, ...] | None,
        Flag(
            "Noise levels, comma-separated: clean, symmetric:0.4, pairflip:0.3, asymmetric:0.3, instance:0.4, "
            "matrix:FILE, human:worst (or aggre, random1, random2, random3; cifar100n: human:noisy). By default those "
            "of the dataset; for your own data given, the labels as they are, or, of several --annotators, majority "
            "(others: soft, dawid-skene, annotator:NAME).",
            _WHAT,
            read=read_list,
        ),
    ] = None
    space: Annotated[str | None, Flag("Shipped search space or YAML file. By default the dataset's own.", _WHAT)] = None
    methods: Annotated[
        tuple[str, ...],
        Flag(
            "Losses to compare, comma-separated, with equal shares of the trials: ce, gls (both signs of the rate), "
            "gce, sce, nce_rce, forward, backward, elr, ce_eps_mae, bootstrap, or module.path:Class. By default ce and "
            "gls with the shares of the space.",
            _WHAT,
            metavar="NAMES",
            read=read_methods,
        ),
    ] = ()
    preset: Annotated[
        str, MinLen(1),
        Flag(
            "Preset of the space, by its name in the file. auto takes gpu or cpu, whichever the machine is, where the "
            "space has it.",
            _WHAT,
            metavar="NAME",
        ),
    ] = "auto"  # fmt: skip
    overrides: Annotated[
        tuple[str, ...],
        Flag(
            "Fix a setting (optimizer=adamw) or change a key of the space (lr.low=1e-5, budget.grace_epochs=4). "
            "May be repeated.",
            _WHAT,
            metavar="KEY=VALUE",
            name="--set",
        ),
    ] = ()
    images: Annotated[
        Path | None,
        Flag("Folder of images: one folder per class, or any files that --table names.", _OWN, metavar="DIR"),
    ] = None
    table: Annotated[
        Path | None,
        Flag(
            "CSV or Parquet file of features (or with a column of images), or folder of a saved Hugging Face dataset; "
            "with --images: the labels of the files.",
            _OWN,
            metavar="FILE",
        ),
    ] = None
    arrays: Annotated[
        Path | None, Flag("File .npz with images or features and labels, or .npy with inputs.", _OWN, metavar="FILE")
    ] = None
    label: Annotated[
        str | None, MinLen(1),
        Flag("Column of the labels; array of an .npz file; for .npy a file.", _OWN, metavar="COLUMN"),
    ] = None  # fmt: skip
    annotators: Annotated[
        tuple[str, ...],
        Flag(
            "Columns of the labels of several annotators, in place of --label; a cell may be empty.",
            _OWN,
            metavar="A,B,C",
            read=read_list,
        ),
    ] = ()
    features: Annotated[
        tuple[str, ...],
        Flag("Columns of the features. By default all that have no other use.", _OWN, metavar="A,B", read=read_list),
    ] = ()
    drop: Annotated[tuple[str, ...], Flag("Columns that are no features.", _OWN, metavar="A,B", read=read_list)] = ()
    image_size: Annotated[
        int | None, Ge(4), Le(512),
        Flag(
            "Side in pixels to which images are brought. "
            "By default images of one size, up to 64, keep it; others get 32.", _OWN,
        ),
    ] = None  # fmt: skip
    val: Annotated[
        str | None, MinLen(1),
        Flag(
            "Validation samples: a file or folder of their own, or their share. By default 0.2, of 10,000 or more 0.1.",
            _OWN,
            metavar="FILE|SHARE",
        ),
    ] = None  # fmt: skip
    val_clean: Annotated[bool, Flag("The labels of the file of --val are clean.", _OWN)] = False
    test: Annotated[
        str | None, MinLen(1),
        Flag("Test samples: a file or folder of their own, or their share. By default none.", _OWN,
             metavar="FILE|SHARE"),
    ] = None  # fmt: skip
    clean_labels: Annotated[
        str | None, MinLen(1),
        Flag("Column or array of clean labels, where they are known.", _OWN, metavar="COLUMN"),
    ] = None  # fmt: skip
    group: Annotated[
        str | None, MinLen(1),
        Flag("Column or array of groups, none of which is split between training and validation or test.", _OWN,
             metavar="COLUMN"),
    ] = None  # fmt: skip
    skip_unreadable: Annotated[
        bool, Flag("Leave out images that cannot be read or have no label, and say how many.", _OWN)
    ] = False
    num_trials: Annotated[
        int | None, Ge(1), Flag("Trials per noise level, start points and all arms included.", _BUDGET)
    ] = None
    time_budget: Annotated[
        float | None, Gt(0), Lt(math.inf),
        Flag(
            "Wall time of the search, over all sessions of the run: 90s, 30m, 1.5h. The search ends with this time or "
            "with its trials, whichever comes first; the confirmation follows.",
            _BUDGET,
            metavar="DURATION",
            read=read_seconds,
        ),
    ] = None  # fmt: skip
    level_weight: Annotated[
        tuple[str, ...],
        Flag(
            "Trials of a noise level relative to the others: 2 gives it twice as many. May be repeated.",
            _BUDGET,
            metavar="LEVEL=WEIGHT",
        ),
    ] = ()
    epochs: Annotated[int | None, Ge(1), Flag("Epochs per trial, warm-up included.", _BUDGET)] = None
    train_size: Annotated[int | None, Ge(1), Flag("Training samples to use.", _BUDGET)] = None
    test_size: Annotated[int | None, Ge(1), Flag("Test samples to use. By default all of the dataset.", _BUDGET)] = None
    confirm_seeds: Annotated[
        int | None, Ge(0), Le(20),
        Flag("Fresh seeds with which the winners and CE are trained again; 0 turns the confirmation off.", _BUDGET),
    ] = None  # fmt: skip
    confirm_on: Annotated[
        Literal["split", "all"],
        Flag(
            "split, or all: train the confirmed configurations again on all labels, validation samples included.",
            _BUDGET,
        ),
    ] = "split"
    sweep: Annotated[
        int | None, Ge(3), Le(99),
        Flag("Rates, from end to end of their range, to train with the confirmation's seeds.", _BUDGET, metavar="N"),
    ] = None  # fmt: skip
    sweep_trials: Annotated[
        int | None, Ge(0), Le(99),
        Flag("Settings to try for each rate of a sweep, 6 by default; 0: those of the best trial near it.", _BUDGET),
    ] = None  # fmt: skip
    data_dir: Annotated[
        Path | None, Flag("Folder of data files. By default $NLS_TUNE_DATA, else the user's cache.", _WHERE)
    ] = None
    trials_per_gpu: Annotated[
        int, Flag(f"Trials that share a GPU, 1 to {MAX_TRIALS_PER_GPU}.", _WHERE, metavar="N", read=read_trials_per_gpu)
    ] = 1
    cpus_per_trial: Annotated[int, Ge(1), Flag("CPU threads per trial.", _WHERE)] = 1
    max_concurrent: Annotated[
        int | None, Ge(1),
        Flag("Trials that run at once, at most. By default as many as CPUs and GPUs allow.", _WHERE, metavar="N"),
    ] = None  # fmt: skip
    trial_timeout: Annotated[
        float | None, Gt(0), Lt(math.inf),
        Flag(
            "A trial without a report for so long counts as hung: its process is ended, and it goes on from its last "
            "checkpoint. Longer than the start of a trial and one epoch. By default trials may take any time.",
            _WHERE,
            metavar="DURATION",
            read=read_seconds,
        ),
    ] = None  # fmt: skip
    compile: Annotated[
        Literal["auto", "on", "off"],
        Flag(
            "Compile training steps: on, off, or auto: on GPUs, where trials are long enough for compiling to pay.",
            _WHERE,
        ),
    ] = "auto"
    address: Annotated[
        str | None,
        Flag(
            "Existing Ray cluster: HOST:PORT, or auto for the one that runs here. By default Ray starts here.", _WHERE
        ),
    ] = None
    warmup_store: Annotated[
        str | None, MinLen(1),
        Flag(
            "Folder of shared CE warm-ups, which several runs may use, by default OUT/warmups; none: no sharing.",
            _WHERE,
            metavar="DIR",
        ),
    ] = None  # fmt: skip
    out: Annotated[
        Path | None,
        Flag(
            "Run directory, by default runs/DATASET-TIME-RANDOM. The same command and directory resume the run.",
            _RESULTS,
        ),
    ] = None
    storage: Annotated[
        str | None, MinLen(1),
        Flag(
            "Mirror the run to this URL while it goes on: s3://BUCKET/FOLDER, gs://, file:// and others. A run that is "
            "there is taken over, for which OUT may be empty. The nodes of a cluster need share no folder then.",
            _RESULTS,
            metavar="URL",
        ),
    ] = None  # fmt: skip
    tensorboard: Annotated[
        bool, Flag("Write every trial's curves and hyperparameters to OUT/tensorboard.", _RESULTS)
    ] = False
    mlflow: Annotated[
        str | None, MinLen(1),
        Flag("Log every trial to MLflow: its tracking URI, sqlite:///mlflow.db.", _RESULTS, metavar="URI"),
    ] = None  # fmt: skip
    wandb: Annotated[
        str | None, MinLen(1),
        Flag("Log every trial to this project at Weights & Biases.", _RESULTS, metavar="PROJECT"),
    ] = None  # fmt: skip
    warm_start: Annotated[
        Path | None,
        Flag(
            "An earlier run: the configurations that were selected there, at the nearest noise level, are tried early.",
            _ADVANCED,
            metavar="RUN",
        ),
    ] = None
    sampler: Annotated[
        SamplerName,
        Flag("Where configurations come from: tpe, random, gp, cmaes, grid (spaces of choices).", _ADVANCED),
    ] = "tpe"
    scheduler: Annotated[
        Literal["asha", "none"], Flag("asha, or none: every trial runs to its end.", _ADVANCED)
    ] = "asha"  # fmt: skip
    objective: Annotated[
        Objective | None,
        Flag("Epoch that counts: best or last. By default best, and last where the schedule is one_cycle.", _ADVANCED),
    ] = None
    metric: Annotated[
        Metric,
        Flag(
            "What selects epochs, configurations and the answer: accuracy; or, where classes are imbalanced, "
            "balanced_accuracy (the mean recall of the classes) or macro_f1.",
            _ADVANCED,
        ),
    ] = "accuracy"
    tta: Annotated[
        Literal["none", "mirror"],
        Flag(
            "mirror: record also the test accuracy over each image and its mirror image, in its own column.", _ADVANCED
        ),
    ] = "none"
    val_fraction: Annotated[
        float | None, Gt(0), Lt(1),
        Flag("Share of the labelled samples held out for validation (noisy labels).", _ADVANCED),
    ] = None  # fmt: skip
    seed: Annotated[int, Ge(0), Lt(2**32), Flag("Seed of training, split and search.", _ADVANCED)] = 0
    noise_seed: Annotated[int, Ge(0), Lt(2**32), Flag("Seed of synthetic noise.", _ADVANCED)] = 0
    noise_draws: Annotated[
        bool, Flag("Draw synthetic noise anew for every fresh seed of the confirmation.", _ADVANCED)
    ] = False
    estimate_noise: Annotated[
        bool | None,
        Flag(
            "Estimate the noise from the noisy labels before the trials. By default where the true noise is unknown.",
            _ADVANCED,
        ),
    ] = None

    @property
    def data(self) -> Data | None:
        """The user's own data; None for a built-in dataset."""
        if self.images is None and self.table is None and self.arrays is None:
            return None
        from nls_tune.datasets.data import Data  # numpy, and --help need not wait for it

        values = {name: getattr(self, name) for name in DATA_SETTINGS}
        return Data(**{**values, "val": _side(self.val), "test": _side(self.test)})

    @property
    def keeps_states_in_storage(self) -> bool:
        """Whether the states of running trials lie behind the storage's URL: the nodes of a cluster share it only."""
        return self.storage is not None and self.address is not None

    @property
    def has_warmups_per_node(self) -> bool:
        """Whether each node of a cluster stores CE warm-ups for itself: there is no folder that all of them see."""
        return self.keeps_states_in_storage and self.warmup_store is None


def flags_of_settings() -> dict[str, tuple[Any, Flag]]:
    """Return the type and the flag of each search setting, by name."""
    hints = get_type_hints(SearchSettings, include_extras=True)
    return {name: (hint.__origin__, hint.__metadata__[-1]) for name, hint in hints.items()}


def flag_name(field_name: str, flag: Flag) -> str:
    """Return a flag as it is written on the command line."""
    return flag.name or f"--{field_name.replace('_', '-')}"


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
        flag = flags[name][1]
        if flag.read is not None:
            try:
                values[name] = flag.read(value)
            except InputError as error:
                raise InputError(f"{flag_name(name, flag)}: {error}") from None
    try:
        settings = TypeAdapter(SearchSettings).validate_python(values)
    except ValidationError as error:
        place, _, rest = describe_validation_error(error).partition(":")
        name = place.split(".")[0]
        raise InputError(f"{flag_name(name, flags[name][1])}:{rest}") from None
    if settings.data is None:
        if given := [name for name in DATA_SETTINGS if getattr(settings, name) != getattr(SearchSettings, name)]:
            shown = flag_name(given[0], flags[given[0]][1])
            raise InputError(f"{shown} is for your own data; give --images, --table or --arrays with it")
    elif values.get("dataset") is not None:
        raise InputError(f"--dataset {settings.dataset} is built in: with your own data leave it out")
    return settings
