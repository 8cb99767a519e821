"""The command line of a noise estimate: ``nls-tune estimate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from nls_tune.cli.exit import check_format
from nls_tune.cli.flags import settings_of_flags, with_flags
from nls_tune.errors import InputError
from nls_tune.plan.settings import DATA_SETTINGS, flags_of_settings

_NAMES = flags_of_settings()["dataset"][1].help.partition(". ")[0]
_Dataset = Annotated[
    str | None, typer.Argument(help=f"{_NAMES}. Needed unless the data are your own: then leave it out.")
]
_Folds = Annotated[int, typer.Option(help="Parts that the samples are cut into: one model is trained per part.")]
_Format = Annotated[str, typer.Option("--format", help="text or json.")]
_HELP = {
    "train_size": "Training samples to use, besides those for validation. By default the preset's.",
    "model": "Name of the network.",
    "epochs": "Epochs per model, at most.",
    "overrides": "Fix a training setting (warmup_lr=0.01). May be repeated.",
    "seed": "Seed of training, folds and bootstrap.",
}


@with_flags(
    "noise", "train_size", "model", "epochs", "preset", "overrides", "data_dir", "seed", "noise_seed", *DATA_SETTINGS,
    help_=_HELP,
)  # fmt: skip
def estimate(dataset: _Dataset = None, *, folds: _Folds = 3, format_: _Format = "text", **flags: Any) -> int:
    """Estimate noise rate and transition matrix from noisy labels alone."""
    from rich.console import Console

    from nls_tune.plan.annotators import annotator_facts
    from nls_tune.plan.plan import make_plan
    from nls_tune.report.console.estimates import print_annotators, print_bias, print_estimate

    check_format(format_, ("text", "json"))
    settings = settings_of_flags({"dataset": dataset, **flags})
    if dataset is None and settings.data is None:
        raise InputError("name the DATASET, or give your own data: --images, --table or --arrays")
    from nls_tune.machine.hardware import find_gpus
    from nls_tune.session.estimating import estimate_level
    from nls_tune.training.out_of_sample import check_folds

    console = Console()
    plan = make_plan(settings, len(find_gpus().found), progress=console.is_terminal)
    first = plan.levels[0].dataset
    check_folds(folds, first.num_train + first.num_val)
    found = []
    if format_ == "text":
        print_annotators(annotator_facts(plan.source), console)
    for level in plan.levels:
        found.append(level.estimate or estimate_level(plan, level, folds=folds))
        if format_ == "text":
            print_estimate(found[-1], console)
    if format_ == "json":
        print(json.dumps([asdict(one) for one in found]))  # in one line: matrices are long
    else:
        print_bias(found, console)
    return 0
