"""Samples of a user's own data as one source gives them: before classes, order, splits and preprocessing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from nls_tune.errors import InputError

#: What stands for a missing value in a text.
MISSING = frozenset({"", "NA", "N/A", "NaN", "nan", "null", "NULL"})
_WHOLE = re.compile(r"(-?\d+)(?:\.0*)?")


class Column(NamedTuple):
    """A feature of a table: float64 numbers with NaN, or texts with None, where a value is missing."""

    name: str
    kind: Literal["number", "category"]
    values: np.ndarray


class Picture(NamedTuple):
    """An image before it is decoded: the name to show, and a file, encoded bytes or pixels (H, W) or (H, W, C)."""

    name: str
    content: Path | bytes | np.ndarray


class PictureRows(Sequence[Picture]):
    """Pictures that are rows of something larger: those of a slice are read when it is asked for.

    ``read`` returns the contents of the rows from one to before another.
    """

    def __init__(self, count: int, read: Callable[[int, int], Iterable[bytes | np.ndarray]]) -> None:
        self._count, self._read = count, read

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        rows = range(self._count)[index]
        if isinstance(rows, int):
            return self[rows : rows + 1][0]
        contents = self._read(rows.start, max(rows.start, rows.stop))
        return [Picture(f"row {row}", content) for row, content in zip(rows, contents, strict=True)]


@dataclass(frozen=True)
class Samples:
    """Samples with the names of their classes, all arrays in one order.

    Either ``pictures`` (and, once these are decoded, ``places``, (N,): theirs among all that are) or ``columns`` hold
    the inputs.
    ``labels``, ``clean`` and ``groups`` are texts, (N,) of objects; the last two None where unknown. Where several
    annotators gave labels, these are the ``votes``, (N, A) of texts or None, and ``labels`` hold nothing. ``where`` is
    the source in messages, and ``notes`` say what was left out of it. ``named_columns`` says that a user knows the
    columns by their names. ``origins`` (N,) are the names of the files, or the numbers of the rows in the source.
    """

    where: str
    labels: np.ndarray
    pictures: Sequence[Picture] = ()
    places: np.ndarray | None = None
    columns: tuple[Column, ...] = ()
    clean: np.ndarray | None = None
    groups: np.ndarray | None = None
    notes: tuple[str, ...] = field(default=())
    named_columns: bool = True
    origins: np.ndarray | None = None
    votes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def of_images(self) -> bool:
        """Whether the inputs are images."""
        return not self.columns

    def take(self, rows: np.ndarray) -> Samples:
        """Return some of the samples."""
        return replace(
            self,
            labels=self.labels[rows],
            pictures=tuple(self.pictures[row] for row in rows) if self.pictures else (),
            places=None if self.places is None else self.places[rows],
            columns=tuple(column._replace(values=column.values[rows]) for column in self.columns),
            clean=None if self.clean is None else self.clean[rows],
            groups=None if self.groups is None else self.groups[rows],
            origins=None if self.origins is None else self.origins[rows],
            votes=None if self.votes is None else self.votes[rows],
        )


def listed(names: Iterable[Any], shown: int = 3) -> str:
    """Return the first of some names, and how many there are besides."""
    found = [str(name) for name in names]
    more = f" and {len(found) - shown:,} more" if len(found) > shown else ""
    return ", ".join(found[:shown]) + more


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun: ``1 image``, ``2 images``."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def class_texts(values: np.ndarray | Sequence[Any], what: str) -> np.ndarray:
    """Return labels as texts, (N,) of objects: whole numbers without a decimal point, so that 1, 1.0 and "1" agree.

    Raises:
        InputError: For missing labels, and for numbers that are not whole: these are no classes.
    """
    texts = as_texts(values, what)
    missing = [row for row, text in enumerate(texts) if text is None]
    if missing:
        raise InputError(
            f"{what} is missing in {counted(len(missing), 'row')} (first: row {missing[0]}); fill in or remove them"
        )
    whole = [_WHOLE.fullmatch(text) for text in texts]
    if not all(whole):
        if all(_is_number(text) for text in texts):
            first = next(text for text, match in zip(texts, whole, strict=True) if not match)
            raise InputError(f"{what} must name classes, got the number {first}; give a column of classes")
        return texts
    return np.array([str(int(match[1])) for match in whole if match], dtype=object)


def as_texts(values: np.ndarray | Sequence[Any], what: str) -> np.ndarray:
    """Return values as texts, (N,) of objects, None where one is missing; refuse what is no text or number."""
    found = np.empty(len(values), dtype=object)
    for row, value in enumerate(values.tolist() if isinstance(values, np.ndarray) else values):
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        if value is None or type(value).__name__ == "NAType":
            continue
        if not isinstance(value, str | bool | int | float | np.generic):
            raise InputError(f"{what} must hold texts or numbers, got {type(value).__name__} in row {row}")
        if value != value or (isinstance(value, str) and value.strip() in MISSING):
            continue
        found[row] = value.strip() if isinstance(value, str) else str(value)
    return found


def sorted_classes(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the names of classes in their order: numbers by value, else by the alphabet."""
    names = set(texts)
    if all(_WHOLE.fullmatch(name) for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def number_classes(texts: np.ndarray, numbers: Mapping[str, int], where: str) -> np.ndarray:
    """Return names of classes as their numbers, int64; raise InputError for names without a number."""
    if unknown := sorted({text for text in texts if text not in numbers}):
        raise InputError(
            f"{where} has {counted(len(unknown), 'class', 'classes')} that the training labels do not have "
            f"({listed(unknown)}); known: {listed(numbers, 5)}"
        )
    return np.array([numbers[text] for text in texts], dtype=np.int64)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
