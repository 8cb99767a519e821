"""The command line of a search: ``python -m nls_tune.search``.

Typer reads names, types, defaults and help from the signature.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


_Dataset = Annotated[str, typer.Option(help="Name of the dataset.")]
_Noise = Annotated[
    str | None,
    typer.Option(
        help="Noise levels, comma-separated: clean, symmetric:0.4, pairflip:0.3, asymmetric:0.3, instance:0.4, "
        "matrix:FILE, human:worst. By default those of the dataset."
    ),
]
_Space = Annotated[str | None, typer.Option(help="Shipped search space or YAML file. By default the dataset's own.")]
_Preset = Annotated[str, typer.Option(help="Preset of the space: gpu, cpu, or auto (gpu where there is one).")]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Fix a setting (optimizer=adamw) or change a key of the space (lr.low=1e-5, budget.grace_epochs=4). "
        "May be repeated.",
    ),
]
_Model = Annotated[str | None, typer.Option(help="Name of the network; short for --set model=NAME.")]
_Precision = Annotated[
    str | None,
    typer.Option(help="float32, bfloat16 or auto, what the hardware computes fast; short for --set precision=NAME."),
]
_NumTrials = Annotated[int | None, typer.Option(help="Trials a noise level, start points and all arms included.")]
_TimeBudget = Annotated[
    str | None,
    typer.Option(
        metavar="DURATION",
        help="Wall time of the search, over all sessions of the run: 90s, 30m, 1.5h. It ends with this or with its "
        "trials, whichever comes first; the confirmation follows.",
    ),
]
_LevelWeight = Annotated[
    list[str] | None,
    typer.Option(
        metavar="LEVEL=WEIGHT",
        help="Trials of a noise level relative to the others: 2 gives it twice as many. May be repeated.",
    ),
]
_WarmStart = Annotated[
    Path | None,
    typer.Option(
        metavar="RUN", help="An earlier run: what was selected there, at the nearest noise level, is tried early."
    ),
]
_Epochs = Annotated[int | None, typer.Option(help="Epochs a trial, warm-up included.")]
_TrainSize = Annotated[int | None, typer.Option(help="Training samples to use.")]
_ConfirmSeeds = Annotated[
    int | None, typer.Option(help="Fresh seeds with which the winners and CE are trained again; 0 turns it off.")
]
_ConfirmOn = Annotated[
    str,
    typer.Option(
        help="split, or all: train the confirmed configurations again on all labels, validation samples included."
    ),
]
_NoiseDraws = Annotated[
    bool, typer.Option("--noise-draws", help="Draw synthetic noise anew for every fresh seed of the confirmation.")
]
_ValFraction = Annotated[
    float | None, typer.Option(help="Share of the labelled samples held out for validation (noisy labels).")
]
_NoiseSeed = Annotated[int, typer.Option(help="Seed of synthetic noise.")]
_Seed = Annotated[int, typer.Option(help="Seed of training, split and search.")]
_Objective = Annotated[str, typer.Option(help="Epoch that counts: best or last.")]
_Transfer = Annotated[bool, typer.Option("--transfer", help="A noise level tries early what is best at others so far.")]
_Sampler = Annotated[
    str, typer.Option(help="Where configurations come from: tpe, random, gp, cmaes, grid (spaces of choices).")
]
_Scheduler = Annotated[str, typer.Option(help="asha, or none: every trial runs to its end.")]
_EstimateNoise = Annotated[
    bool | None,
    typer.Option(
        "--estimate-noise/--no-estimate-noise",
        help="Estimate the noise from the noisy labels before the trials. By default where the true noise is unknown.",
    ),
]
_DataDir = Annotated[
    Path | None, typer.Option(help="Folder of data files. By default $NLS_TUNE_DATA, else the user's cache.")
]
_Out = Annotated[Path | None, typer.Option(help="Run directory; an unfinished one is resumed. [runs/DATASET-TIME]")]
_TrialsPerGpu = Annotated[
    str,
    typer.Option(
        metavar="N|auto", help="Trials that share a GPU; auto measures how many are fastest before the search."
    ),
]
_CpusPerTrial = Annotated[int, typer.Option(help="CPU threads a trial.")]
_Compile = Annotated[
    str, typer.Option(help="Compile training steps: on, off, or auto: on GPUs, where trials are long enough to pay.")
]
_Vectorize = Annotated[
    bool,
    typer.Option(
        "--vectorize",
        help="In the confirmation train up to 16 trials of a small network at once, as one model: mlp, on a GPU also "
        "small_cnn. The search itself runs as ever.",
    ),
]
_Address = Annotated[
    str | None,
    typer.Option(
        help="Existing Ray cluster: HOST:PORT, or auto for the one that runs here. By default Ray starts here."
    ),
]
_WarmupStore = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Folder of shared CE warm-ups, which several runs may use; none: no sharing. [OUT/warmups]",
    ),
]
_Tensorboard = Annotated[
    bool, typer.Option("--tensorboard", help="Write every trial's curves and hyperparameters to OUT/tensorboard.")
]
_Mlflow = Annotated[
    str | None, typer.Option(metavar="URI", help="Log every trial to MLflow: its tracking URI, sqlite:///mlflow.db.")
]
_Wandb = Annotated[str | None, typer.Option(metavar="PROJECT", help="Log every trial to Weights & Biases.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and stop.")]


@app.command()
def search(
    dataset: _Dataset = "twonorm",
    noise: _Noise = None,
    space: _Space = None,
    preset: _Preset = "auto",
    set_: _Set = None,
    model: _Model = None,
    precision: _Precision = None,
    num_trials: _NumTrials = None,
    time_budget: _TimeBudget = None,
    level_weight: _LevelWeight = None,
    warm_start: _WarmStart = None,
    epochs: _Epochs = None,
    train_size: _TrainSize = None,
    confirm_seeds: _ConfirmSeeds = None,
    confirm_on: _ConfirmOn = "split",
    noise_draws: _NoiseDraws = False,
    val_fraction: _ValFraction = None,
    noise_seed: _NoiseSeed = 0,
    seed: _Seed = 0,
    objective: _Objective = "best",
    transfer: _Transfer = False,
    sampler: _Sampler = "tpe",
    scheduler: _Scheduler = "asha",
    estimate_noise: _EstimateNoise = None,
    data_dir: _DataDir = None,
    out: _Out = None,
    trials_per_gpu: _TrialsPerGpu = "1",
    cpus_per_trial: _CpusPerTrial = 1,
    compile: _Compile = "auto",
    vectorize: _Vectorize = False,
    address: _Address = None,
    warmup_store: _WarmupStore = None,
    tensorboard: _Tensorboard = False,
    mlflow: _Mlflow = None,
    wandb: _Wandb = None,
    dry_run: _DryRun = False,
) -> int:
    """Search the smooth rate for each noise level of a dataset."""
    # The flags are the search settings, but for those that are put together or say something else here.
    short = {"model": model, "precision": precision}
    flags = {name: value for name, value in locals().items() if name not in ("set_", "dry_run", "short", *short)}
    from rich.console import Console

    from nls_tune.plan.settings import check_search_settings
    from nls_tune.session.session import run_settings
    from nls_tune.tune.interrupts import InterruptedRunError

    flags["noise"] = None if noise is None else tuple(part.strip() for part in noise.split(","))
    flags["overrides"] = (*(set_ or []), *(f"{name}={value}" for name, value in short.items() if value is not None))
    flags["level_weight"] = tuple(level_weight or ())
    settings = check_search_settings(**flags)
    console = Console()
    try:
        result = run_settings(settings, console, dry_run=dry_run)
        if result is None or result.status == "finished":
            return 0
        run = result.run
    except InterruptedRunError as interrupted:
        run = interrupted.run
    console.print(
        "Interrupted; trials that ended are kept, and those that ran go on from their last checkpoint. "
        f"To go on: {_resume_command(run)}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    return 130


def _resume_command(run: Path) -> str:
    """This command with the run directory that it chose."""
    arguments = sys.argv[1:]
    if not any(a == "--out" or a.startswith("--out=") for a in arguments):
        arguments = [*arguments, "--out", str(run)]
    program = ["nls-tune"] if Path(sys.argv[0]).name == "nls-tune" else ["python", "-m", "nls_tune.search"]
    return shlex.join([*program, *arguments])
