"""The command line of predictions: ``nls-tune predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that nls-tune train wrote.", show_default=False)]
_Input = Annotated[
    Path,
    typer.Argument(
        metavar="INPUT",
        help="Arrays (.npy, .npz), a table (.csv, .parquet), or a folder of images.",
        show_default=False,
    ),
]
_Out = Annotated[Path, typer.Option(metavar="FILE", help="File to write, .csv or .parquet.")]


def predict(model: _Model, inputs: _Input, out: _Out = Path("predictions.csv")) -> int:
    """Predict classes with a saved network: one row per sample, with a probability per class."""
    from nls_tune.datasets.inputs import load_inputs
    from nls_tune.report.predictions import prediction_table
    from nls_tune.report.table_files import check_table_file, write_table_file
    from nls_tune.report.text import amount, printable
    from nls_tune.runs.saved_model import read_saved_model
    from nls_tune.training.predictor import load_predictor

    check_table_file(out)
    saved = read_saved_model(model)
    found = load_inputs(inputs, saved.input_shape, saved.preprocessing)
    probabilities = load_predictor(model).probabilities(found.values, prepared=True)
    write_table_file(out, prediction_table(probabilities, found.files, saved.class_names))
    where = f"{saved.model} of {printable(saved.dataset)}, {printable(saved.noise_level)}"
    print(f"Wrote {out}: {amount(len(probabilities), 'prediction')} of {where}")
    return 0
