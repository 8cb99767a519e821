"""The command line of the network to take home: ``nls-tune train``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from nls_tune.cli.flags import with_flags

RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="Run, by folder or URL.", show_default=False)]
LevelOption = Annotated[
    str | None, typer.Option(metavar="LEVEL", help="Noise level. Needed if the run has several.", show_default=False)
]
_Out = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder to write. By default RUN/models/LEVEL; models/LEVEL in this folder for a URL.",
        show_default=False,
    ),
]


#: What the flags say that tell where a user's own data lie now.
DATA_HELP = {
    "images": "Folder of your own images, if it lies elsewhere now.",
    "table": "Your own table, if it lies elsewhere now.",
    "arrays": "Your own arrays, if they lie elsewhere now.",
}


@with_flags("data_dir", "images", "table", "arrays", help_=DATA_HELP)
def train(run: RunArgument, *, level: LevelOption = None, out: _Out = None, **flags: Any) -> int:
    """Train the recommended configuration of a noise level on all labels, and save the network.

    The same command goes on after an interruption. It writes model.safetensors, model.json and a model card, README.md.
    """
    from nls_tune.report.text import percent, printable
    from nls_tune.session.answer import load_answer
    from nls_tune.session.final_model import train_answer

    folder = None if out is None else out.expanduser().absolute()  # loading may change the current folder
    answer = load_answer(run, level, {name: value for name, value in flags.items() if value is not None})
    for problem in answer.run.problems:
        print(f"note: {printable(problem)}", file=sys.stderr)
    if answer.run.status != "finished":
        print(f"note: the run is {answer.run.status}; its verdict may change", file=sys.stderr)
    found = train_answer(answer, folder or answer.folder("models"), say=lambda line: print(line, flush=True))
    saved = found.saved
    known = (
        "" if saved.test_accuracy is None else f", {percent(saved.test_accuracy, 2)} on {saved.test_labels} test labels"
    )
    print(f"{'Trained already' if found.was_there else 'Wrote'}: {found.folder}{known}")
    print(f"To use it: nls-tune predict {found.folder} INPUT")
    return 0
