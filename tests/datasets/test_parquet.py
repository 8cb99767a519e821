import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_cifar import encode, fake_images, write_parquet

from nls_tune.datasets.parquet import find_shards, read_images
from nls_tune.errors import InputError

NAMES = ("fine_label", "label")
OPTIONS = {"label_columns": NAMES, "num_classes": 10, "image_shape": (3, 32, 32), "progress": False}


@pytest.mark.parametrize(
    ("fmt", "image_column", "label_column"), [("PNG", "img", "fine_label"), ("WEBP", "image", "label")]
)
def test_images_and_labels_come_in_the_order_of_the_files(tmp_path, fmt, image_column, label_column):
    images, labels = fake_images(7, seed=0)
    columns = {"image_column": image_column, "label_column": label_column}
    files = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    for file, rows in zip(files, (range(5), range(5, 7)), strict=True):
        write_parquet(file, [encode(images[i], fmt=fmt) for i in rows], labels[list(rows)], **columns)
    got_images, got_labels = read_images(files, **OPTIONS)
    assert np.array_equal(got_images, images)
    assert got_images.flags.c_contiguous
    assert got_labels.dtype == np.int64
    assert got_labels.tolist() == labels.tolist()


def test_more_rows_than_one_task_has(tmp_path, monkeypatch):
    monkeypatch.setattr("nls_tune.datasets.parquet._ROWS_PER_TASK", 3)
    images, labels = fake_images(11, seed=0)
    write_parquet(tmp_path / "a.parquet", [encode(image) for image in images], labels)
    seen = []
    options = OPTIONS | {"progress": lambda *step: seen.append(step)}
    assert np.array_equal(read_images([tmp_path / "a.parquet"], **options)[0], images)
    assert [done for _, done, _ in seen] == [3, 6, 9, 11]


def test_grey_images(tmp_path):
    image = np.full((3, 8, 8), 77, dtype=np.uint8)
    write_parquet(tmp_path / "a.parquet", [encode(image, mode="L")], [3])
    images, _ = read_images([tmp_path / "a.parquet"], **OPTIONS | {"image_shape": (1, 8, 8)})
    assert np.array_equal(images, image[None, :1])


@pytest.fixture
def good():
    images, _ = fake_images(3, seed=0)
    return [encode(image) for image in images]


def with_rows(images, labels, **columns):
    return lambda file, good: write_parquet(
        file, [good[i] if isinstance(i, int) else i for i in images], labels, **columns
    )


def flat_images(file, good):
    pq.write_table(pa.table({"img": good, "label": [0, 1, 2]}), file)


def damaged(start, stop):
    def write(file, good):
        write_parquet(file, good, [0, 1, 2])
        content = file.read_bytes()
        file.write_bytes(content[:start] + bytes(stop - start) + content[stop:] if stop else content[:start])

    return write


ROWS, LABELS = range(3), [0, 1, 2]
SMALL, GREY = encode(np.zeros((3, 28, 30), np.uint8)), encode(np.zeros((3, 32, 32), np.uint8), mode="L")
UNDECODED = r"the image in row 1 of .* cannot be decoded"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda file, good: file.write_bytes(b"nonsense"),
            r"cannot be read as Parquet .*; replace it by an intact copy",
        ),
        (damaged(-100, None), r"cannot be read as Parquet"),
        (damaged(4, 200), r"cannot be (read|decoded)"),
        (
            with_rows(ROWS, LABELS, label_column="coarse_label"),
            r"the label column fine_label or label, but has img, coa",
        ),
        (with_rows(ROWS, LABELS, image_column="picture"), r"the image column img or image, but has picture, label"),
        (flat_images, r"column img of .* must be a struct of bytes and path, not binary"),
        (with_rows(ROWS, [0.0, 1.0, 2.0]), r"column label of .* must hold whole numbers, not double"),
        (with_rows(ROWS, [0, None, 2]), r"must hold whole numbers, not int64 with 1 nulls"),
        (with_rows(ROWS, [0, -1, 2]), r"must be 0 to 9, but .* has -1 in row 1"),
        (with_rows(ROWS, [0, 10, 2]), r"must be 0 to 9, but .* has 10 in row 1"),
        (with_rows([0, b"no image", 2], LABELS), UNDECODED),
        (with_rows([0, encode(np.zeros((3, 32, 32), np.uint8))[:60], 2], LABELS), UNDECODED),
        (with_rows([0, b"", 2], LABELS), UNDECODED),
        (with_rows([0, None, 2], LABELS), UNDECODED),
        (with_rows([0, SMALL], [0, 1]), r"must be 32 x 32 RGB, but row 1 of .* is 30 x 28 RGB"),
        (with_rows([GREY], [0]), r"must be 32 x 32 RGB, but row 0 of .* is 32 x 32 L"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path, good, write, message):
    file = tmp_path / "a.parquet"
    write(file, good)
    with pytest.raises(InputError, match=message) as caught:
        read_images([file], **OPTIONS)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["train.parquet"],
        ["train-a.parquet", "train-b.parquet"],
        ["train-00000-of-00001.parquet"],
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
    ],
)
def test_the_files_of_a_split(tmp_path, names):
    for name in [*reversed(names), "test.parquet", "training.parquet"]:
        (tmp_path / name).touch()
    assert [file.name for file in find_shards(tmp_path, "train")] == names


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["train-00000-of-00002.parquet"], r"has 1 of 2 train files; put train-00001-of-00002\.parquet there"),
        (["train-00002-of-00003.parquet"], r"put train-00000-of-00003\.parquet, train-00001-of-00003\.parquet"),
        (["train-00000-of-00001.parquet", "train-00000-of-00002.parquet"], r"one set of train-\*\.parquet"),
        (["train-00000-of-00001.parquet", "train.parquet"], r"one set of train-\*\.parquet"),
    ],
)
def test_incomplete_or_mixed_files_of_a_split(tmp_path, names, message):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=message):
        find_shards(tmp_path, "train")
