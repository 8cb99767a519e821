from __future__ import annotations

import numpy as np
import pytest
from fake_cifar import encode, fake_images, write_parquet

from nls_tune.datasets.parquet import find_shards, read_images
from nls_tune.errors import InputError

OPTIONS = {
    "label_columns": ("fine_label", "label"),
    "num_classes": 10,
    "image_shape": (3, 32, 32),
    "progress": False,
}


@pytest.mark.parametrize("fmt", ["PNG", "WEBP"])
@pytest.mark.parametrize("image_column", ["img", "image"])
@pytest.mark.parametrize("label_column", ["fine_label", "label"])
def test_images_and_labels_come_in_the_order_of_the_files(tmp_path, fmt, image_column, label_column):
    images, labels, _ = fake_images(7, seed=0)
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
    monkeypatch.setattr("nls_tune.datasets.parquet._ROWS_A_TASK", 3)
    images, labels, _ = fake_images(11, seed=0)
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
    images, _, _ = fake_images(3, seed=0)
    return [encode(image) for image in images]


def check_refused(file, message, **options):
    with pytest.raises(InputError, match=message) as caught:
        read_images([file], **OPTIONS | options)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_parquet(tmp_path):
    file = tmp_path / "a.parquet"
    file.write_bytes(b"nonsense")
    check_refused(file, r"cannot be read as Parquet .*; replace it by an intact copy")


def test_a_truncated_file(tmp_path, good):
    file = tmp_path / "a.parquet"
    write_parquet(file, good, [0, 1, 2])
    file.write_bytes(file.read_bytes()[:-100])
    check_refused(file, r"cannot be read as Parquet")


def test_damage_in_the_middle_of_a_file(tmp_path, good):
    file = tmp_path / "a.parquet"
    write_parquet(file, good, [0, 1, 2])
    content = bytearray(file.read_bytes())
    content[4:200] = bytes(196)
    file.write_bytes(content)
    check_refused(file, r"cannot be (read|decoded)")


def test_a_missing_column(tmp_path, good):
    file = tmp_path / "a.parquet"
    write_parquet(file, good, [0, 1, 2], label_column="coarse_label")
    check_refused(file, r"needs the label column fine_label or label, but has img, coarse_label")
    write_parquet(file, good, [0, 1, 2], image_column="picture")
    check_refused(file, r"needs the image column img or image, but has picture, label")


def test_columns_of_another_type(tmp_path, good):
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"img": good, "label": [0, 1, 2]}), file)
    check_refused(file, r"column img of .* must be a struct of bytes and path, not binary")
    write_parquet(file, good, [0.0, 1.0, 2.0])
    check_refused(file, r"column label of .* must hold whole numbers, not double")
    write_parquet(file, good, [0, None, 2])
    check_refused(file, r"must hold whole numbers, not int64 with 1 nulls")


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_out_of_range(tmp_path, good, label):
    file = tmp_path / "a.parquet"
    write_parquet(file, good, [0, label, 2])
    check_refused(file, rf"must be 0 to 9, but .* has {label} in row 1")


def test_images_that_cannot_be_decoded(tmp_path, good):
    file = tmp_path / "a.parquet"
    for bad in (b"no image", good[1][:60], b"", None):
        write_parquet(file, [good[0], bad, good[2]], [0, 1, 2])
        check_refused(file, r"the image in row 1 of .* cannot be decoded")


def test_images_of_another_size_or_mode(tmp_path, good):
    file = tmp_path / "a.parquet"
    write_parquet(file, [good[0], encode(np.zeros((3, 28, 30), np.uint8))], [0, 1])
    check_refused(file, r"must be 32 x 32 RGB, but row 1 of .* is 30 x 28 RGB")
    write_parquet(file, [encode(np.zeros((3, 32, 32), np.uint8), mode="L")], [0])
    check_refused(file, r"must be 32 x 32 RGB, but row 0 of .* is 32 x 32 L")


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ([], []),
        (["test.parquet"], []),
        (["train.parquet"], ["train.parquet"]),
        (["train-b.parquet", "train-a.parquet"], ["train-a.parquet", "train-b.parquet"]),
        (["train-00000-of-00001.parquet"], ["train-00000-of-00001.parquet"]),
        (
            ["train-00001-of-00002.parquet", "train-00000-of-00002.parquet", "training.parquet"],
            ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        ),
    ],
)
def test_the_files_of_a_split(tmp_path, names, found):
    for name in names:
        (tmp_path / name).touch()
    assert [file.name for file in find_shards(tmp_path, "train")] == found


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
