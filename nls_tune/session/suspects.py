"""The labels of a run that are most probably wrong: judged by networks that were not trained on them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from nls_tune.datasets.progress import show_progress
from nls_tune.errors import InputError
from nls_tune.files import write_atomically
from nls_tune.noise.confident_learning import DEFAULT_FOLDS
from nls_tune.noise.label_issues import find_label_issues
from nls_tune.report.html.suspects import suspects_page
from nls_tune.report.suspects import Suspects, suspect_table
from nls_tune.report.table_files import write_table_file
from nls_tune.session.answer import Answer


def find_suspects(answer: Answer, *, folds: int = DEFAULT_FOLDS, progress: bool = True) -> Suspects:
    """Find the labels of a noise level that are most probably wrong, those of validation among them unless clean.

    The networks are trained as the run recommends, or with cross-entropy at the defaults where it recommends nothing.

    Raises:
        InputError: As ``predict_out_of_sample``.
    """
    from nls_tune.training.out_of_sample import predict_out_of_sample

    dataset, chosen = answer.dataset, answer.recommended
    settings = answer.default_ce if chosen is None else chosen.settings
    what = f"{dataset.name}, {answer.level}: epochs of {folds} models"
    with show_progress(progress, what, folds * settings.epochs) as report:
        said = predict_out_of_sample(
            dataset, settings, folds=folds, report=report, metric=answer.run.content.metric,
            way_out="give other --folds, or search again with a lower {}",
        )  # fmt: skip
    judged = dataset.may_be_wrong(said.rows)
    rows = said.rows[judged]
    issues = find_label_issues(dataset.noisy_labels[rows], said.probabilities[judged])
    issues = replace(issues, indices=rows[issues.indices])
    return Suspects(issues, len(rows), folds, settings, recommended=chosen is not None)


def write_suspects(answer: Answer, found: Suspects, folder: Path) -> list[Path]:
    """Write the suspicious labels to a folder: as CSV and Parquet, and of images also a page; return the files."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out must be a folder, {folder} is a file; give another place")
    dataset, names = answer.dataset, answer.class_names
    origins = None if answer.own is None else answer.own.origins
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / "suspects.csv", folder / "suspects.parquet"]
        for file in files:
            write_table_file(file, suspect_table(found.issues, names, origins))
        if len(dataset.input_shape) == 3 and dataset.input_shape[0] in (1, 3):
            page = folder / "suspects.html"
            title = f"{dataset.name}, {answer.level}"
            write_atomically(page, suspects_page(title, found.issues, dataset.inputs, names, origins))
            files.append(page)
    except PermissionError as error:
        raise InputError(f"--out must be a place that can be written, {folder} is not ({error.strerror})") from None
    return files
