"""Small CIFAR look-alikes."""

import io
from pathlib import Path

import numpy as np

NUM_TRAIN, NUM_TEST = 40, 20


def fake_images(count: int, seed: int, num_classes: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 3, 32, 32) uint8 images and (N,) labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return images, np.arange(count) % num_classes


def encode(image: np.ndarray, mode: str = "RGB", fmt: str = "PNG") -> bytes:
    """Return a (3, H, W) uint8 image as the bytes of an image file."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).convert(mode).save(buffer, fmt, lossless=True)
    return buffer.getvalue()


def write_parquet(
    file: Path,
    encoded: list[bytes | None],
    labels: np.ndarray | list,
    *,
    image_column: str = "img",
    label_column: str = "label",
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(encoded)]
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pq.write_table(pa.table({image_column: pa.array(rows, struct), label_column: pa.array(labels)}), file)


def write_cifar_parquet(folder: Path, *, shards: int = 2, num_classes: int = 10, **columns: str) -> None:
    """Write a small CIFAR in Hugging Face's layout."""
    for split, count, seed, parts in (("train", NUM_TRAIN, 1, shards), ("test", NUM_TEST, 2, 1)):
        images, labels = fake_images(count, seed, num_classes)
        for part, rows in enumerate(np.array_split(np.arange(count), parts)):
            file = folder / f"{split}-{part:05d}-of-{parts:05d}.parquet"
            write_parquet(file, [encode(images[i]) for i in rows], labels[rows], **columns)
