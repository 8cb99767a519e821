"""Own tables: which column is what, and of which kind the features are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from nls_tune.datasets.frames import Frame, read_frame
from nls_tune.datasets.own_images import pictures_of_table
from nls_tune.datasets.samples import MISSING, Column, Samples, as_texts, class_texts, counted, listed
from nls_tune.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from nls_tune.datasets.data import Data

_PATHS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path", "img", "img_path",
)  # fmt: skip
Kinds = Mapping[str, Literal["number", "category"]]


def read_table(
    table: Path | pd.DataFrame, data: Data, *, like: Samples | None = None, is_right: bool = False
) -> Samples:
    """Read the samples of a table; those of a second one have the features of the first, ``like``.

    Where annotators labelled the first, the labels of one that ``is_right`` are its clean labels, if it has some.

    Raises:
        InputError: If the table cannot be read, or breaks a rule that the message names.
    """
    frame = read_frame(table, with_images=data.images is None)
    labels, votes = _given_labels(frame, data, first=like is None, is_right=is_right)
    clean = groups = None
    # Where annotators labelled the training samples, right labels may be those of other files only.
    elsewhere = data.annotators and not all(isinstance(side, float | None) for side in (data.val, data.test))
    if data.clean_labels is not None and (data.clean_labels in frame.columns or (like is None and not elsewhere)):
        clean = _labels(frame, data.clean_labels, "--clean-labels")
    if data.group is not None:
        values = as_texts(frame.column(data.group, "--group").to_numpy(), f"column {data.group} of {frame.where}")
        if absent := sum(value is None for value in values):
            raise InputError(f"column {data.group} of {frame.where} is missing in {counted(absent, 'row')}; fill it in")
        groups = values
    if data.images is not None:
        return Samples(frame.where, labels, _pictures(frame, data.images), clean=clean, groups=groups, votes=votes)
    if frame.pictures:
        if data.features or data.drop:
            raise InputError(f"{frame.where} holds images: leave out --features and --drop")
        return Samples(frame.where, labels, frame.pictures, clean=clean, groups=groups, votes=votes)
    if like is None:
        taken = [data.label, data.clean_labels, data.group, *data.annotators]
        names = _features(frame, data, [name for name in taken if name is not None])
        columns = tuple(_column(frame, name) for name in names)
        _check_content(frame.where, columns)
    else:
        columns = columns_of(frame, {column.name: column.kind for column in like.columns})
    return Samples(frame.where, labels, columns=columns, clean=clean, groups=groups, notes=frame.notes, votes=votes)


def columns_of(frame: Frame, kinds: Kinds) -> tuple[Column, ...]:
    """Return features of known names and kinds; InputError: the table lacks some, or they are of another kind."""
    lacking = [name for name in kinds if name not in frame.columns]
    if len(lacking) > 1:  # of a single one the nearest name is said
        raise InputError(
            f"{frame.where} lacks {counted(len(lacking), 'column')} of the features ({listed(lacking, 10)}); it holds "
            f"{listed(frame.columns, 10)}"
        )
    return tuple(_column(frame, name, kind) for name, kind in kinds.items())


def _given_labels(frame: Frame, data: Data, *, first: bool, is_right: bool) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the labels, or None for each sample and the labels of annotators, (N, A).

    A table that is not the first need not have all annotators; without any of them its clean labels are its labels.
    """
    if not data.annotators:
        return _labels(frame, str(data.label), "--label"), None
    there = [name for name in data.annotators if first or name in frame.columns]
    has_clean = data.clean_labels is not None and data.clean_labels in frame.columns
    if has_clean and (is_right or not there):
        return _labels(frame, str(data.clean_labels), "--clean-labels"), None
    if not there:
        if data.clean_labels is not None:
            frame.column(data.clean_labels, "--clean-labels")  # raises the error that names the nearest column
        raise InputError(
            f"{frame.where} has no column of an annotator ({listed(data.annotators)}) and none of right labels; "
            "name one with --clean-labels"
        )
    votes = np.full((len(frame.columns), len(data.annotators)), None, dtype=object)
    for name in there:
        texts = as_texts(frame.column(name, "--annotators").to_numpy(), f"column {name} of {frame.where}")
        if frame.class_names and name in frame.class_names:  # Hugging Face's library writes -1 where there is no label
            texts[texts == "-1"] = None
        known = np.array([text is not None for text in texts], dtype=bool)
        if first and not known.any():
            raise InputError(f"column {name} of {frame.where} holds no label; leave it out of --annotators")
        votes[known, data.annotators.index(name)] = _named(frame, name, texts[known])
    return np.full(len(votes), None, dtype=object), votes


def _labels(frame: Frame, name: str, flag: str) -> np.ndarray:
    return _named(frame, name, frame.column(name, flag).to_numpy())


def _named(frame: Frame, name: str, values: np.ndarray) -> np.ndarray:
    """Return the labels of a column as names of classes."""
    found = class_texts(values, f"column {name} of {frame.where}")
    names = (frame.class_names or {}).get(name)
    if names is None:
        return found
    wrong = [text for text in found if not text.isdigit() or int(text) >= len(names)]
    if wrong:
        raise InputError(f"column {name} of {frame.where} must be 0 to {len(names) - 1}, got {wrong[0]}")
    return np.array([names[int(text)] for text in found], dtype=object)


def _pictures(frame: Frame, folder: Path) -> tuple[Any, ...]:
    known = {str(column).lower(): str(column) for column in frame.columns}
    name = next((known[path] for path in _PATHS if path in known), None)
    if name is None:
        raise InputError(
            f"{frame.where} needs a column that names the files ({listed(_PATHS, 6)}), "
            f"but has {listed(frame.columns, 6)}; rename it"
        )
    values = as_texts(frame.columns[name].to_numpy(), f"column {name} of {frame.where}")
    pictures = pictures_of_table(folder, list(values), f"column {name} of {frame.where}")
    names = [picture.name for picture in pictures]
    if len(set(names)) < len(names):
        twice = sorted({one for one in names if names.count(one) > 1})
        raise InputError(f"{frame.where} names {counted(len(twice), 'file')} more than once ({listed(twice)})")
    return tuple(pictures)


def _features(frame: Frame, data: Data, taken: Sequence[str]) -> list[str]:
    """Return the names of the features: those asked for, else all columns without another use."""
    for flag, asked in (("--features", data.features), ("--drop", data.drop)):
        for name in asked:
            frame.column(name, flag)
    if both := [name for name in data.features if name in data.drop]:
        raise InputError(f"--features and --drop both name {listed(both)}; leave one of them out")
    if used := [name for name in data.features if name in taken]:
        raise InputError(f"--features names {listed(used)}, which tells of the label or the group; leave it out")
    names = list(data.features) or [n for n in map(str, frame.columns) if n not in taken and n not in data.drop]
    if not names:
        raise InputError(f"{frame.where} has no column left for features; it holds {listed(frame.columns)}")
    return names


def _column(frame: Frame, name: str, kind: str | None = None) -> Column:
    """Return a feature. Its kind is given, or follows from its values: numbers, or texts."""
    import pandas as pd
    from pandas.api import types

    values = frame.column(name, "a feature")
    what = f"column {name} of {frame.where}"
    if frame.typed and types.is_numeric_dtype(values) and not types.is_bool_dtype(values):
        if types.is_complex_dtype(values):
            raise InputError(f"{what} holds complex numbers; split them into two columns, or --drop {name}")
        numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
        if kind != "category":
            return Column(name, "number", numbers)
    if types.is_datetime64_any_dtype(values) or types.is_timedelta64_dtype(values):
        raise InputError(f"{what} holds times; turn them into numbers, or --drop {name}")
    cells = values.astype(object).to_numpy()
    found = as_texts(cells, what)
    present = np.array([text is not None for text in found], dtype=bool)
    parsed = pd.to_numeric(pd.Series(found[present], dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    # A typed column is of one kind whatever its texts look like, unless the file itself mixes texts and numbers.
    is_text = np.isnan(parsed)
    if frame.typed:
        is_text = np.array([isinstance(cell, str | bool | np.bool_) for cell in cells[present]], dtype=bool)
    given = kind is not None
    if kind is None:
        kind = "category" if is_text.all() and present.any() else "number"
    if kind == "category" and not (frame.typed and 0 < is_text.sum() < len(is_text)):
        return Column(name, "category", found)
    if is_text.any():
        rows, texts = np.flatnonzero(present)[is_text], found[present][is_text]
        raise InputError(
            f"{what} mixes {counted(int((~is_text).sum()), 'number')} with {counted(len(rows), 'text')} "
            f"(first: {texts[0]!r} in row {rows[0]}); make it one kind{'' if given else f', or --drop {name}'}"
        )
    numbers = np.full(len(found), np.nan)
    numbers[present] = parsed
    return Column(name, "number", numbers)


def _check_content(where: str, columns: Sequence[Column]) -> None:
    """Refuse columns that are empty or the same in every row: they tell nothing."""
    empty, constant = [], []
    for name, _, values in columns:
        missing = _missing(values)
        if missing.all():
            empty.append(name)
        elif not missing.any() and (values == values[0]).all() and len(values) > 1:
            constant.append(name)
    for names, problem in ((empty, "no value at all"), (constant, "the same value in every row")):
        if names:
            drop = ",".join(names) if len(names) <= 10 else "NAMES"
            raise InputError(
                f"{counted(len(names), 'column')} of {where} hold {problem} ({listed(names)}); --drop {drop}"
            )


def _missing(values: np.ndarray) -> np.ndarray:
    if values.dtype == object:
        return np.array([value is None or value in MISSING for value in values], dtype=bool)
    return np.asarray(np.isnan(values))
