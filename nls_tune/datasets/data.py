"""``Data``: a user's own data, in files or in memory."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from nls_tune.datasets.registry import DATASETS
from nls_tune.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Data:
    """A user's own data for ``run_search``; made by one of the four methods ``from_...``.

    Attributes:
        images: Folder of images: one folder per class, or any files that ``table`` names.
        table: CSV or Parquet file, folder of Parquet files or of a saved Hugging Face dataset, or a data frame.
        arrays: File .npz, file .npy, or arrays by name.
        label: Column or array of the labels.
        annotators: Columns of the labels of several annotators, in place of ``label``; cells may be empty.
        features: Columns of the features; by default all others.
        drop: Columns that are no features.
        image_size: Side in pixels to which images are brought; by default small images of one size keep it.
        val: Validation samples: their share, or a source of their own.
        val_clean: Whether the labels of ``val`` are clean.
        test: Test samples: their share, or a source of their own; None for none.
        clean_labels: Column or array of clean labels.
        group: Column or array of groups, none of which is split.
        skip_unreadable: Whether images that cannot be read, or have no label, are left out.
    """

    images: Path | None = None
    table: Path | pd.DataFrame | None = None
    arrays: Path | Mapping[str, np.ndarray] | None = None
    label: str | None = None
    annotators: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    image_size: int | None = None
    val: float | Path | Mapping[str, np.ndarray] | pd.DataFrame | None = None
    val_clean: bool = False
    test: float | Path | Mapping[str, np.ndarray] | pd.DataFrame | None = None
    clean_labels: str | None = None
    group: str | None = None
    skip_unreadable: bool = False

    def __post_init__(self) -> None:
        given = [name for name in ("images", "table", "arrays") if getattr(self, name) is not None]
        if not given:
            raise InputError("own data need a source: --images, --table or --arrays")
        if "arrays" in given and len(given) > 1:
            raise InputError(f"--{given[0]} and --arrays are two sources; give one")
        if given == ["images"]:
            self._refuse("needs --table FILE: without one the folders of --images are the classes", "label",
                         "annotators", "clean_labels", "group")  # fmt: skip
        if "arrays" in given:
            self._refuse("is for a --table", "annotators")
        self._check_annotators()
        if "table" in given and self.label is None and not self.annotators:
            raise InputError(
                "--table needs --label COLUMN, the column of the labels, or --annotators A,B,C, those of several people"
            )
        if given != ["table"]:
            self._refuse("is for a --table of features", "features", "drop")
        for name in ("val", "test"):
            value = getattr(self, name)
            if isinstance(value, float) and not 0 < value < 1:
                raise InputError(f"--{name} must be a file or a share between 0 and 1, got {value:g}")
        if self.val_clean and (self.val is None or isinstance(self.val, float)):
            raise InputError("--val-clean is for a validation file of its own: give it with --val FILE")

    def _check_annotators(self) -> None:
        names = self.annotators
        if names and self.label is not None:
            raise InputError(
                f"--label {self.label} and --annotators {','.join(names)} both name the labels; leave one of them out"
            )
        if len(names) == 1:
            raise InputError(f"--annotators needs at least 2 columns, got {names[0]!r}; --label is for a single one")
        if wrong := [name for name in names if not name or name != name.strip() or "," in name]:
            raise InputError(
                "--annotators must be names of columns without commas or blanks around them, "
                f"got {wrong[0]!r}; rename it"
            )
        if twice := [name for i, name in enumerate(names) if name in names[:i]]:
            raise InputError(f"--annotators must name each column once, got {twice[0]} twice; leave one of them out")

    def _refuse(self, why: str, *names: str) -> None:
        for name in names:
            if getattr(self, name):
                raise InputError(f"--{name.replace('_', '-')} {why}; leave it out, or give that")

    @classmethod
    def from_folder(
        cls,
        folder: str | Path,
        *,
        table: str | Path | pd.DataFrame | None = None,
        label: str | None = None,
        annotators: Sequence[str] = (),
        image_size: int | None = None,
        val: float | str | Path | pd.DataFrame | None = None,
        val_clean: bool = False,
        test: float | str | Path | pd.DataFrame | None = None,
        clean_labels: str | None = None,
        group: str | None = None,
        skip_unreadable: bool = False,
    ) -> Self:
        """Return the images of a folder: one folder per class, or any files that a ``table`` names and labels."""
        return cls(
            images=Path(folder), table=_path(table), label=label, annotators=_names(annotators), image_size=image_size,
            val=_path(val), val_clean=val_clean, test=_path(test), clean_labels=clean_labels, group=group,
            skip_unreadable=skip_unreadable,
        )  # fmt: skip

    @classmethod
    def from_table(
        cls,
        file: str | Path,
        *,
        label: str | None = None,
        annotators: Sequence[str] = (),
        features: str | Sequence[str] = (),
        drop: str | Sequence[str] = (),
        image_size: int | None = None,
        val: float | str | Path | None = None,
        val_clean: bool = False,
        test: float | str | Path | None = None,
        clean_labels: str | None = None,
        group: str | None = None,
        skip_unreadable: bool = False,
    ) -> Self:
        """Return the rows of a CSV or Parquet file, or of a folder that Hugging Face's ``save_to_disk`` has written."""
        return cls(
            table=Path(file), label=label, annotators=_names(annotators), features=_names(features), drop=_names(drop),
            image_size=image_size, val=_path(val), val_clean=val_clean, test=_path(test), clean_labels=clean_labels,
            group=group, skip_unreadable=skip_unreadable,
        )  # fmt: skip

    @classmethod
    def from_dataframe(
        cls,
        frame: pd.DataFrame,
        *,
        label: str | None = None,
        annotators: Sequence[str] = (),
        features: str | Sequence[str] = (),
        drop: str | Sequence[str] = (),
        val: float | pd.DataFrame | None = None,
        val_clean: bool = False,
        test: float | pd.DataFrame | None = None,
        clean_labels: str | None = None,
        group: str | None = None,
    ) -> Self:
        """Return the rows of a data frame."""
        return cls(
            table=frame, label=label, annotators=_names(annotators), features=_names(features), drop=_names(drop),
            val=val, val_clean=val_clean, test=test, clean_labels=clean_labels, group=group,
        )  # fmt: skip

    @classmethod
    def from_arrays(
        cls,
        inputs: np.ndarray,
        labels: np.ndarray,
        *,
        image_size: int | None = None,
        val: float | tuple[np.ndarray, np.ndarray] | None = None,
        val_clean: bool = False,
        test: float | tuple[np.ndarray, np.ndarray] | None = None,
        clean_labels: np.ndarray | None = None,
        groups: np.ndarray | None = None,
    ) -> Self:
        """Return arrays: uint8 images (N, H, W) or (N, H, W, C), or features (N, D), and labels (N,)."""
        more = {"clean_labels": clean_labels, "groups": groups}
        arrays = _arrays((inputs, labels)) | {name: np.asarray(one) for name, one in more.items() if one is not None}
        return cls(
            arrays=arrays, label="labels", image_size=image_size, val_clean=val_clean,
            val=_arrays(val) if isinstance(val, tuple) else val,
            test=_arrays(test) if isinstance(test, tuple) else test,
            clean_labels=None if clean_labels is None else "clean_labels", group=None if groups is None else "groups",
        )  # fmt: skip

    @property
    def name(self) -> str:
        """The name that runs and rows show: that of the file or folder."""
        source = next(one for one in (self.images, self.table, self.arrays) if one is not None)
        if not isinstance(source, Path):
            return "own-data"
        stem = re.sub(r"[^\w.-]+", "-", source.expanduser().absolute().stem).strip(".-") or "own-data"
        return f"own-{stem}" if stem in DATASETS else stem

    @property
    def is_on_disk(self) -> bool:
        """Whether all of it is in files, so that a command can find it again."""
        sources = (self.table, self.arrays, self.val, self.test)
        return all(isinstance(one, Path | float | None) for one in sources)

    def settings(self) -> dict[str, object]:
        """Return the search settings that name the same data, all of which must be in files."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("val", "test"):
            found[name] = None if found[name] is None else str(found[name])
        return {field.name: found[field.name] for field in fields(self) if found[field.name] != field.default}


def _path(value: Any) -> Any:
    return Path(value) if isinstance(value, str) else value


def _names(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _arrays(pair: tuple[np.ndarray, np.ndarray]) -> dict[str, np.ndarray]:
    return {"inputs": np.asarray(pair[0]), "labels": np.asarray(pair[1])}
