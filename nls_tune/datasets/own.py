"""A user's own data as a source: classes, one order whatever the container, splits, fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nls_tune.datasets.annotations import Annotations, notes_on_votes, number_labels, without_unlabelled
from nls_tune.datasets.data import Data
from nls_tune.datasets.features import check_finite, encode, learn_steps
from nls_tune.datasets.image_cache import DecodedImages
from nls_tune.datasets.mapped import InputArray
from nls_tune.datasets.own_arrays import read_arrays
from nls_tune.datasets.own_images import check_unlabelled, find_images
from nls_tune.datasets.own_pixels import decode_parts
from nls_tune.datasets.own_tables import read_table
from nls_tune.datasets.progress import Progress
from nls_tune.datasets.registry import DatasetInfo
from nls_tune.datasets.samples import Samples, counted, listed, number_classes, sorted_classes
from nls_tune.datasets.source import OwnFacts, Source, hash_arrays, input_statistics
from nls_tune.datasets.splits import number_units, prefix_of_units
from nls_tune.errors import InputError
from nls_tune.noise.annotators import GAP

_TEST_STREAM, _VAL_STREAM = 0x7E57, 0x5B11
_MOST_CLASSES = 1_000
#: From so many samples on a tenth of them validates, below a fifth.
_MANY = 10_000


def load_own(
    data: Data, *, split_seed: int = 0, val_fraction: float | None = None, progress: Progress = True
) -> Source:
    """Load a user's own data.

    Samples are put into an order that depends on their content alone, and drawn from it: the same content in another
    container, or in another order, gives the same source, with the same fingerprint. A test share is the same for all
    seeds. Equal inputs, and samples of a group, never stand on both sides of a split. (In a
    table with groups equal rows of two groups may: few values, or gaps, would else tie all groups together.)

    Args:
        data: Where the data are.
        split_seed: Decides which samples validate.
        val_fraction: Share of them; by default that of ``data.val``, else 0.2, and 0.1 of many samples.
        progress: See `Progress`.

    Raises:
        InputError: If the data cannot be read or break a rule, in one line that names what and how many.
    """
    if val_fraction is not None and data.val is not None:
        raise InputError("--val and --val-fraction both say what validates; leave one of them out")
    parts, images, notes = _read(data, progress)
    classes = _classes(parts["main"])
    part = _Numbered.of(parts, images, classes)
    notes += part.notes_on_duplicates()
    part, dropped = part.without_overlaps()
    notes += dropped
    if not len(part.rows("main")):
        raise InputError(f"no training sample of {parts['main'].where} is left: {'; '.join(dropped)}")
    if isinstance(data.test, float):
        rows = part.rows("main")
        test = prefix_of_units(part.units[rows], part.labels[rows], data.test, _generator(_TEST_STREAM, 0))
        part = part.move(rows[test], "test")
    if isinstance(data.val, float | None):
        rows = part.rows("main")
        share = val_fraction or data.val or (0.2 if len(rows) < _MANY else 0.1)
        val = prefix_of_units(part.units[rows], part.labels[rows], share, _generator(_VAL_STREAM, split_seed))
        part = part.move(rows[val], "val")
    return _source(data, part, images, classes, notes)


def _generator(stream: int, seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([stream, seed]))


# Reading


def _read(data: Data, progress: Progress) -> tuple[dict[str, Samples], DecodedImages | None, list[str]]:
    """Read the samples of all sources; return them, their images decoded to one size, and notes on what is left out."""
    main_source = next(source for source in (data.table, data.arrays, data.images) if source is not None)
    sources: dict[str, Any] = {"main": main_source}
    sides = {"val": data.val, "test": data.test}
    sources |= {name: side for name, side in sides.items() if not isinstance(side, float | None)}
    parts: dict[str, Samples] = {}
    for name, source in sources.items():
        like = parts.get("main")
        if data.arrays is not None:
            parts[name] = read_arrays(source, data, like=like)
        elif data.table is not None:
            is_right = name == "test" or (name == "val" and data.val_clean)
            parts[name] = read_table(source, data, like=like, is_right=is_right)
        else:
            parts[name] = find_images(source)
        pictures = parts[name].pictures
        files = [one.name for one in pictures] if pictures and isinstance(pictures[0].content, Path) else []
        parts[name] = replace(parts[name], origins=np.array(files or range(len(parts[name])), "O" if files else int))
    main = parts["main"]
    images = None
    notes: list[str] = []
    if data.images is not None and data.table is not None:
        notes += check_unlabelled(data.images, list(parts.values()), data.skip_unreadable)
    if data.annotators:
        if data.clean_labels and all(one.clean is None for one in parts.values()):
            raise InputError(
                f"no file has the column {data.clean_labels!r} of --clean-labels; leave it out, or correct it"
            )
        for name, samples in parts.items():
            parts[name], dropped = without_unlabelled(samples)
            notes += dropped
        main = parts["main"]
    if main.of_images:
        parts, images, size_note = decode_parts(parts, data.image_size, skip=data.skip_unreadable, progress=progress)
        notes += [*size_note, *(note for samples in parts.values() for note in samples.notes)]
    elif data.image_size is not None:
        raise InputError(f"--image-size is for images, and {main.where} holds features; leave it out")
    for samples in parts.values():
        if not samples.of_images:
            notes += samples.notes
        check_finite(samples.columns, samples.where, named=samples.named_columns)
    return parts, images, notes


def _classes(main: Samples) -> tuple[str, ...]:
    """Return the names of the classes, or refuse labels that are no classes to learn."""
    given = [main.labels.tolist()] if main.votes is None else [set(row) - {None} for row in main.votes.tolist()]
    counts = Counter(label for labels in given for label in labels)
    names = sorted_classes(counts)
    if len(names) > _MOST_CLASSES:
        raise InputError(
            f"the labels of {main.where} have {len(names):,} different values, at most {_MOST_CLASSES:,} can be "
            "classes; give a column of classes"
        )
    if len(names) < 2:
        raise InputError(f"{main.where} has one class only ({listed(names)}); at least 2 are needed")
    if rare := [name for name in names if counts[name] < 2]:
        raise InputError(
            f"{counted(len(rare), 'class', 'classes')} of {main.where} have fewer than 2 samples ({listed(rare)}); "
            "add samples, or leave them out"
        )
    return names


# One order, and the splits


@dataclass(frozen=True)
class _Numbered:
    """The samples of all parts in their one order, with numbers in place of names.

    ``clean`` is -1 where unknown, ``units`` are what no split divides, and ``side`` says main, val or test. ``votes``
    (N, A) are the labels of annotators, -1 where there is none; A is 0 where each sample has one ``label``.
    """

    samples: Samples
    side: np.ndarray
    labels: np.ndarray
    clean: np.ndarray
    units: np.ndarray
    digests: np.ndarray
    votes: np.ndarray

    @classmethod
    def of(cls, parts: dict[str, Samples], images: DecodedImages | None, classes: Sequence[str]) -> _Numbered:
        """Join the parts, each sorted by the content of its samples, then by label and clean label."""
        numbers = {name: number for number, name in enumerate(classes)}
        joined, sides, digests, labels, clean, votes = [], [], [], [], [], []
        people = max(0 if part.votes is None else part.votes.shape[1] for part in parts.values())
        for name, part in parts.items():
            found, known = _digests(part, images), np.full(len(part), -1)
            given, voted = number_labels(part, numbers, found, people)
            if part.clean is not None:
                known = number_classes(part.clean, numbers, f"the clean labels of {part.where}")
            keys = list(zip(found, given.tolist(), known.tolist(), voted.tolist(), strict=True))
            order = np.array(sorted(range(len(part)), key=keys.__getitem__), dtype=np.int64)
            joined.append(part.take(order))
            sides.append(np.full(len(part), name, dtype=object))
            digests.append(np.array(found, dtype=object)[order])
            labels.append(given[order])
            clean.append(known[order])
            votes.append(voted[order])
        samples, all_digests = _joined(joined), np.concatenate(digests)
        return cls(
            samples, np.concatenate(sides), np.concatenate(labels), np.concatenate(clean),
            number_units(all_digests.tolist(), samples.groups, tied=samples.of_images), all_digests,
            np.concatenate(votes),
        )  # fmt: skip

    def rows(self, side: str) -> np.ndarray:
        """Return the rows of a part."""
        return np.flatnonzero(self.side == side)

    def move(self, rows: np.ndarray, side: str) -> _Numbered:
        """Return the samples with some of them in another part."""
        changed = self.side.copy()
        changed[rows] = side
        return replace(self, side=changed)

    def notes_on_duplicates(self) -> list[str]:
        """Say how many inputs are there more than once, and how many of them with another label."""
        counts = Counter(self.digests.tolist())
        more = sum(count - 1 for count in counts.values())
        if not more:
            return []
        labels: dict[bytes, set[int]] = {}
        for digest, label in zip(self.digests.tolist(), self.labels.tolist(), strict=True):
            labels.setdefault(digest, set()).add(label)
        differing = sum(len(found) > 1 for found in labels.values())
        if self.samples.groups is not None and not self.samples.of_images:
            together = "the groups say what stays together"
        else:
            together = "equal ones stand on one side of every split"
        text = f"{counted(more, 'sample')} {'is' if more == 1 else 'are'} equal to another one"
        if differing:
            text += f", {counted(differing, 'input')} with different labels"
        return [f"{text}; {together}"]

    def without_overlaps(self) -> tuple[_Numbered, list[str]]:
        """Leave out training samples that are in a file of validation or test samples, and validation ones in test."""
        keep, notes = np.ones(len(self.side), dtype=bool), []
        for side, others in (("main", ("val", "test")), ("val", ("test",))):
            held_out = np.isin(self.side, others)
            overlap = (self.side == side) & np.isin(self.units, self.units[held_out])
            keep &= ~overlap
            if number := int(overlap.sum()):
                what = "training" if side == "main" else "validation"
                notes.append(
                    f"{counted(number, f'{what} sample')} left out: equal ones are held out, or their group is"
                )
        return self.take(np.flatnonzero(keep)), notes

    def take(self, rows: np.ndarray) -> _Numbered:
        """Return some of the samples."""
        return _Numbered(
            self.samples.take(rows), self.side[rows], self.labels[rows], self.clean[rows], self.units[rows],
            self.digests[rows], self.votes[rows],
        )  # fmt: skip


def _digests(part: Samples, images: DecodedImages | None) -> list[bytes]:
    """Return the SHA-256 of each sample's input: its pixels, or its values."""
    if images is not None and part.places is not None:
        return [digest.tobytes() for digest in images.digests[part.places]]
    numbers = [column.values for column in part.columns if column.kind == "number"]
    table = np.stack(numbers, axis=1) + 0.0 if numbers else np.zeros((len(part), 0))  # no -0.0
    table[np.isnan(table)] = np.nan  # there are many NaNs
    little = np.ascontiguousarray(table, dtype="<f8")
    texts = [column.values.tolist() for column in part.columns if column.kind == "category"]
    kinds = "".join(column.kind[0] for column in part.columns)
    rows = zip(*texts, strict=True) if texts else [()] * len(part)
    tails = (json.dumps([kinds, *row]).encode() for row in rows)
    return [hashlib.sha256(row.tobytes() + tail).digest() for row, tail in zip(little, tails, strict=True)]


def _joined(parts: Sequence[Samples]) -> Samples:
    first = parts[0]
    columns = tuple(
        column._replace(values=np.concatenate([part.columns[i].values for part in parts]))
        for i, column in enumerate(first.columns)
    )
    places = [part.places for part in parts if part.places is not None]
    groups = None
    if first.groups is not None:
        groups = np.concatenate([g if (g := part.groups) is not None else np.full(len(part), None) for part in parts])
    return replace(
        first,
        labels=np.concatenate([part.labels for part in parts]),
        places=np.concatenate(places) if places else None,
        columns=columns,
        clean=None,
        votes=None,
        groups=groups,
        origins=np.concatenate([part.origins for part in parts if part.origins is not None]),
    )


# The source


def _source(
    data: Data, part: _Numbered, images: DecodedImages | None, classes: tuple[str, ...], notes: list[str]
) -> Source:
    main, val, test = (part.rows(side) for side in ("main", "val", "test"))
    lacking = [name for i, name in enumerate(classes) if i not in part.labels[main]]
    if lacking and not data.annotators:
        raise InputError(
            f"{counted(len(lacking), 'class', 'classes')} of {part.samples.where} have no training sample left "
            f"({listed(lacking)}): what validates and tests holds all of them; "
            + "; ".join([*(note for note in notes if "left out" in note), "add samples"])
        )
    if not len(val):
        raise InputError(f"no validation sample of {part.samples.where} is left; give a larger share or another file")
    train = np.arange(len(main))
    labelled = np.concatenate([main, val])
    rows = np.concatenate([labelled, test])
    inputs: InputArray
    if images is not None and part.samples.places is not None:
        inputs = images.take(part.samples.places[rows])
        mean, std = input_statistics(inputs[train])
        preprocessing: dict[str, object] = {
            "kind": "images", "shape": list(inputs.shape[1:]), "mean": mean.tolist(), "std": std.tolist(),
        }  # fmt: skip
    else:
        columns = part.samples.take(rows).columns
        steps = learn_steps(columns, train, part.samples.where)
        inputs = encode(columns, steps)
        mean, std = (np.full(inputs.shape[1], value, dtype=np.float32) for value in (0, 1))
        preprocessing = {"kind": "features", "columns": steps}
    clean = part.clean[labelled].copy()
    if data.val_clean:
        clean[len(main) :] = part.labels[val]
    test_labels, knows = part.labels[test].copy(), part.clean[test] >= 0
    test_labels[knows] = part.clean[test][knows]
    annotations = None
    if data.annotators:
        votes = part.votes[labelled].copy()
        if data.val_clean:
            votes[len(main) :] = GAP
        annotations = Annotations(data.annotators, votes, len(classes))
        notes = [*notes, *notes_on_votes(annotations, lacking)]
    info = DatasetInfo(
        data.name, len(classes), inputs.shape[1:], ("majority" if data.annotators else "given",),
        default_val_fraction=len(val) / len(labelled), num_labelled=len(labelled), num_test=len(test), own=True,
        knows_clean=bool((clean >= 0).all()), annotators=data.annotators,
    )  # fmt: skip
    facts = OwnFacts(
        class_names=classes,
        val_rows=np.arange(len(main), len(labelled)),
        val_clean=data.val_clean,
        clean_labels=clean if info.knows_clean else None,
        test_clean=bool(knows.all()) or not isinstance(data.test, float),
        preprocessing={"class_names": list(classes), **preprocessing},
        notes=(*notes, *_notes_on_labels(data, part)),
        origins=_origins(data, part, labelled),
        annotations=annotations,
        units=units if len(np.unique(units := part.units[labelled])) < len(labelled) else None,
    )
    end, hashes = len(labelled), _fingerprint(part, classes, data.annotators)
    return Source(info, inputs[:end], part.labels[labelled], inputs[end:], test_labels, mean, std, hashes, own=facts)


def _origins(data: Data, part: _Numbered, rows: np.ndarray) -> dict[str, np.ndarray]:
    origins = part.samples.take(rows).origins
    assert origins is not None  # noqa: S101 - they were noted when the samples were read
    found = {"row" if origins.dtype.kind == "i" else "file": origins}
    if not isinstance(data.val, float | None) and not data.val_clean:
        found["source"] = np.where(part.side[rows] == "val", "val", "train")
    return found


def _fingerprint(part: _Numbered, classes: Sequence[str], annotators: Sequence[str]) -> str:
    """Return the SHA-256 of the classes, and of inputs and labels of each part in their order."""
    arrays, people = [], sorted(annotators)
    for side in ("main", "val", "test"):
        rows = part.rows(side)
        arrays += [np.frombuffer(b"".join(part.digests[rows]), np.uint8), part.labels[rows], part.clean[rows]]
        arrays += [part.votes[rows, annotators.index(name)] for name in people]
    return hash_arrays(*arrays, seed=json.dumps([list(classes), people] if people else list(classes)))


def _notes_on_labels(data: Data, part: _Numbered) -> list[str]:
    notes = []
    if data.val_clean:
        notes.append("the validation labels are taken as clean; no noise is put on them")
    elif not isinstance(data.val, float | None):
        notes.append("the labels of the validation file are taken as noisy; --val-clean says otherwise")
    test = part.rows("test")
    if not len(test):
        notes.append("without test samples no gain can be proven; --test FILE with clean labels, or --test 0.2")
    elif (part.clean[test] < 0).any():
        if isinstance(data.test, float):
            notes.append("the test labels are given ones, some may be wrong: test accuracies are too low by that")
        else:
            majority = ", the annotators' majority," if data.annotators else ""
            notes.append(f"the labels of the test file{majority} are taken as clean")
    return notes
