"""Writes CIFAR's Python files byte for byte as their authors' Python 2 did, so that the published MD5s hold.

Protocol 2 as cPickle wrote it: byte strings are SHORT_BINSTRING or BINSTRING, lists are appended to in batches
of 1,000, and an object is put into the memo (numbered from 1) unless nothing else refers to it, which is why the
tuples and short strings of the array's description are not.
"""

from pathlib import Path

import numpy as np

CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
_BATCH = 1_000


class _Writer:
    def __init__(self) -> None:
        self.parts = [b"\x80\x02"]
        self.memo = 0

    def add(self, *parts: bytes) -> None:
        self.parts.extend(parts)

    def put(self, *parts: bytes) -> None:
        """Add an object, and put it into the memo."""
        self.memo += 1
        number = b"q" + bytes([self.memo]) if self.memo < 256 else b"r" + self.memo.to_bytes(4, "little")
        self.add(*parts, number)

    def integers(self, values: list[int]) -> None:
        self.put(b"]")
        for start in range(0, len(values), _BATCH):
            self.add(b"(", *(integer(value) for value in values[start : start + _BATCH]), b"e")

    def strings(self, values: list[str]) -> None:
        self.put(b"]")
        for start in range(0, len(values), _BATCH):
            self.add(b"(")
            for value in values[start : start + _BATCH]:
                self.put(string(value.encode()))
            self.add(b"e")

    def array(self, values: np.ndarray) -> None:
        """Add a two-dimensional uint8 array."""
        rows, columns = values.shape
        self.put(b"cnumpy.core.multiarray\n_reconstruct\n")
        self.put(b"cnumpy\nndarray\n")
        self.put(integer(0), b"\x85", string(b"b"), b"\x87R")
        self.add(b"(", integer(1), integer(rows), integer(columns), b"\x86")
        self.put(b"cnumpy\ndtype\n")
        self.put(string(b"u1"), integer(0), integer(1), b"\x87R")
        self.add(b"(", integer(3), string(b"|"), b"NNN", integer(-1), integer(-1), integer(0), b"tb")
        self.add(b"\x89", string(values.tobytes()), b"tb")

    def result(self) -> bytes:
        return b"".join(self.parts)


def integer(value: int) -> bytes:
    if 0 <= value < 256:
        return b"K" + bytes([value])
    if 0 <= value < 65536:
        return b"M" + value.to_bytes(2, "little")
    return b"J" + value.to_bytes(4, "little", signed=True)


def string(value: bytes) -> bytes:
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + len(value).to_bytes(4, "little") + value


def batch(title: str, inputs: np.ndarray, labels: np.ndarray, names: list[str]) -> bytes:
    """Return a batch file: (N, 3, 32, 32) uint8 images, (N,) labels and the N names of the images."""
    writer = _Writer()
    writer.put(b"}")
    writer.add(b"(")
    writer.put(string(b"batch_label"))
    writer.put(string(title.encode()))
    writer.put(string(b"labels"))
    writer.integers(labels.tolist())
    writer.put(string(b"data"))
    writer.array(inputs.reshape(len(inputs), -1))
    writer.put(string(b"filenames"))
    writer.strings(names)
    writer.add(b"u.")
    return writer.result()


def meta(cases: int = 10_000) -> bytes:
    """Return the file ``batches.meta``."""
    writer = _Writer()
    writer.put(b"}")
    writer.add(b"(")
    writer.put(string(b"num_cases_per_batch"))
    writer.add(integer(cases))
    writer.put(string(b"label_names"))
    writer.strings(CIFAR10_NAMES)
    writer.put(string(b"num_vis"))
    writer.add(integer(3_072), b"u.")
    return writer.result()


def write_cifar10(folder: Path, train: tuple, test: tuple) -> None:
    """Write ``cifar-10-batches-py`` from (inputs, labels, names) of the training and the test samples."""
    folder.mkdir(parents=True)
    for number in range(1, 6):
        rows = slice(10_000 * (number - 1), 10_000 * number)
        content = batch(f"training batch {number} of 5", *(part[rows] for part in train))
        (folder / f"data_batch_{number}").write_bytes(content)
    (folder / "test_batch").write_bytes(batch("testing batch 1 of 1", *test))
    (folder / "batches.meta").write_bytes(meta())
