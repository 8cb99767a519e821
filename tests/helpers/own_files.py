"""Small files of a user's own data: images, tables and arrays, good and bad."""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = ("cat", "dog")


def pixels(number: int, size: int = 8, seed: int = 0) -> np.ndarray:
    """Different images in colour."""
    return np.random.default_rng(seed).integers(0, 256, (number, size, size, 3), dtype=np.uint8)


def png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, "png")
    return content.getvalue()


def labels_of(number: int) -> np.ndarray:
    return np.array([CLASSES[i % 2] for i in range(number)])


def write_folder(folder: Path, images: np.ndarray, labels: np.ndarray) -> Path:
    """Write one folder per class."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{index:03}.png").write_bytes(png(image))
    return folder


def write_flat(folder: Path, images: np.ndarray, labels: np.ndarray, table: Path, **more: object) -> Path:
    """Write all files into one folder, and a table that names and labels them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"image {index}.png" for index in range(len(images))]
    for name, image in zip(names, images, strict=True):
        (folder / name).write_bytes(png(image))
    pd.DataFrame({"file_name": names, "kind": labels, **more}).to_csv(table, index=False)
    return folder


def write_image_parquet(file: Path, images: np.ndarray, labels: np.ndarray, names: list[str] | None = None) -> Path:
    """Write images as Hugging Face's library does; with ``names`` the labels are their numbers."""
    pq.write_table(image_table(images, labels, names), file)
    return file


def image_table(images: np.ndarray, labels: np.ndarray, names: list[str] | None = None) -> pa.Table:
    column = pa.array([{"bytes": png(image), "path": None} for image in images])
    if names is None:
        return pa.table({"image": column, "label": pa.array(list(labels))})
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    table = pa.table({"image": column, "label": pa.array([names.index(label) for label in labels])})
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def write_saved(folder: Path, table: pa.Table, parts: int = 2) -> Path:
    """Write a table as Hugging Face's ``save_to_disk`` does."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05}-of-{parts:05}.arrow" for i in range(parts)]
    step = -(-len(table) // parts)
    for i, name in enumerate(names):
        with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table.slice(i * step, step))
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def features(number: int = 60, seed: int = 0) -> pd.DataFrame:
    """Numbers with gaps, categories, and labels of which some are wrong; ``truth`` holds the right ones."""
    rng = np.random.default_rng(seed)
    size, weight = rng.normal(size=number), rng.normal(60, 15, number)
    colour = rng.choice(["red", "green", "blue"], number)
    right = np.where(size + (colour == "red") > 0.3, "yes", "no")
    answer = np.where(rng.random(number) < 0.2, np.where(right == "yes", "no", "yes"), right)
    frame = pd.DataFrame({"size": size, "weight": weight, "colour": colour, "answer": answer, "truth": right})
    frame.loc[frame.index % 7 == 3, "weight"] = np.nan
    frame.loc[frame.index % 20 == 5, "colour"] = None
    return frame


def annotated(number: int = 400, seed: int = 0, *, gaps: float = 0.25) -> pd.DataFrame:
    """Features that tell one of three classes, ``truth``, and labels of a, b and c, who err in 0.1, 0.25 and 0.4."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(number, 4)).round(6)
    right = (inputs @ np.random.default_rng(9).normal(size=(4, 3))).argmax(axis=1)
    frame = pd.DataFrame(inputs, columns=[f"f{i}" for i in range(4)])
    names = np.array(["cat", "dog", "owl"], dtype=object)
    for name, error in (("a", 0.1), ("b", 0.25), ("c", 0.4)):
        wrong = rng.random(number) < error
        column = names[np.where(wrong, (right + rng.integers(1, 3, number)) % 3, right)]
        column[rng.random(number) < gaps] = None
        frame[name] = column
    frame["truth"] = names[right]
    return frame


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 400 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )
