"""The command line of a noise estimate: ``nls-tune estimate``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

_Dataset = Annotated[str, typer.Argument(help="Name of the dataset.", show_default=False)]
_Noise = Annotated[str | None, typer.Option(help="Noise levels, comma-separated. By default those of the dataset.")]
_TrainSize = Annotated[
    int | None, typer.Option(help="Training samples to use, besides those for validation. By default the preset's.")
]
_Folds = Annotated[int, typer.Option(help="Parts that the samples are cut into: a model is trained for each.")]
_Model = Annotated[str | None, typer.Option(help="Name of the network.")]
_Epochs = Annotated[int | None, typer.Option(help="Epochs a model, at most.")]
_Preset = Annotated[str, typer.Option(help="Preset of the search space: gpu, cpu, or auto (gpu where there is one).")]
_Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Fix a training setting (warmup_lr=0.01). May be repeated."),
]
_DataDir = Annotated[
    Path | None, typer.Option(help="Folder of data files. By default $NLS_TUNE_DATA, else the user's cache.")
]
_Seed = Annotated[int, typer.Option(help="Seed of training, folds and bootstrap.")]
_NoiseSeed = Annotated[int, typer.Option(help="Seed of synthetic noise.")]
_Format = Annotated[str, typer.Option("--format", help="text or json.")]


def estimate(
    dataset: _Dataset,
    noise: _Noise = None,
    train_size: _TrainSize = None,
    folds: _Folds = 3,
    model: _Model = None,
    epochs: _Epochs = None,
    preset: _Preset = "auto",
    set_: _Set = None,
    data_dir: _DataDir = None,
    seed: _Seed = 0,
    noise_seed: _NoiseSeed = 0,
    format_: _Format = "text",
) -> int:
    """Estimate noise rate and transition matrix from noisy labels alone."""
    from rich.console import Console

    from nls_tune.errors import unknown_name
    from nls_tune.plan.plan import make_plan
    from nls_tune.plan.settings import check_search_settings
    from nls_tune.report.console.estimates import print_bias, print_estimate

    if format_ not in ("text", "json"):
        raise unknown_name("format", format_, ("text", "json"))
    settings = check_search_settings(
        dataset=dataset,
        noise=None if noise is None else tuple(part.strip() for part in noise.split(",")),
        train_size=train_size,
        epochs=epochs,
        preset=preset,
        overrides=(*(set_ or []), *([] if model is None else [f"model={model}"])),
        data_dir=data_dir,
        seed=seed,
        noise_seed=noise_seed,
    )
    from nls_tune.machine.hardware import find_gpus
    from nls_tune.session.estimating import estimate_level
    from nls_tune.training.estimate import check_folds

    console = Console()
    plan = make_plan(settings, len(find_gpus().found), progress=console.is_terminal)
    first = plan.levels[0].dataset
    check_folds(folds, first.num_train + first.num_val)
    found = []
    for level in plan.levels:
        found.append(estimate_level(plan, level, folds=folds))
        if format_ == "text":
            print_estimate(found[-1], console)
    if format_ == "json":
        print(json.dumps([asdict(one) for one in found]))  # in one line: matrices are long
    else:
        print_bias(console)
    return 0
