import hashlib
import io
import logging
import os
import pickle
import shutil
import socket
import tarfile

import numpy as np
import pytest
from fake_cifar import NUM_TEST, NUM_TRAIN, fake_images, write_cifar_parquet
from file_server import FileServer

from nls_tune.datasets import DATASETS, load_source
from nls_tune.datasets.cifar import find_cifar
from nls_tune.errors import InputError


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


def check_small(source) -> None:
    for inputs, labels, count, seed in (
        (source.inputs, source.labels, NUM_TRAIN, 1),
        (source.test_inputs, source.test_labels, NUM_TEST, 2),
    ):
        expected_inputs, expected_labels = fake_images(count, seed)
        assert np.array_equal(inputs, expected_inputs)
        assert np.array_equal(labels, expected_labels)
        assert inputs.flags.c_contiguous


@pytest.fixture
def batches(small, monkeypatch):
    """The files of a small CIFAR-10 in the format of the Python version, and torchvision knowing their MD5."""
    from torchvision import datasets

    def batch(count: int, seed: int) -> bytes:
        inputs, labels = fake_images(count, seed)
        return pickle.dumps({"data": inputs.reshape(count, -1), "labels": labels.tolist()})

    train, test = batch(NUM_TRAIN, 1), batch(NUM_TEST, 2)
    files = {"data_batch_1": train, "test_batch": test, "batches.meta": pickle.dumps({"label_names": [*"abcdefghij"]})}
    facts = {
        "train_list": [("data_batch_1", md5(train))],
        "test_list": [("test_batch", md5(test))],
        "meta": datasets.CIFAR10.meta | {"md5": md5(files["batches.meta"])},
    }
    small_cifar10 = type("SmallCIFAR10", (datasets.CIFAR10,), facts)
    monkeypatch.setattr(datasets, "CIFAR10", small_cifar10)
    return files, small_cifar10


@pytest.fixture
def archive(batches):
    """The archive of these files, and torchvision knowing its MD5."""
    files, kind = batches
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    kind.tgz_md5 = md5(buffer.getvalue())
    return buffer.getvalue(), kind


def write_batches(folder, files) -> None:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("columns", [{"label_column": "fine_label"}, {"image_column": "image"}])
def test_cifar100_has_either_name_of_its_label_column(small, tmp_path, columns):
    write_cifar_parquet(tmp_path / "cifar100", num_classes=100, **columns)
    check = load_source("cifar100", data_dir=tmp_path, progress=False)
    assert check.labels.tolist() == list(range(NUM_TRAIN))


def test_the_files_may_lie_directly_in_the_folder(small, tmp_path):
    write_cifar_parquet(tmp_path)
    check_small(load_source("cifar10", data_dir=tmp_path, progress=False))


def test_torchvision_s_folder_is_read_to_the_same_arrays(batches, small_cifar10, tmp_path):
    write_batches(tmp_path / "other" / "cifar-10-batches-py", batches[0])
    (small_cifar10 / "cifar-10-batches-py").mkdir()  # Parquet files come first
    parquet = load_source("cifar10", data_dir=small_cifar10, progress=False)
    folder = load_source("cifar10", data_dir=tmp_path / "other", progress=False)
    check_small(folder)
    assert folder.fingerprint == parquet.fingerprint
    assert np.array_equal(folder.input_mean, parquet.input_mean)


def test_places_are_searched_in_order(small, tmp_path, monkeypatch):
    given, variable, cache = tmp_path / "given", tmp_path / "variable", tmp_path / "cache" / "nls_tune" / "data"
    monkeypatch.setenv("NLS_TUNE_DATA", str(variable))
    info = DATASETS["cifar10"]
    assert find_cifar(info, given) is None
    for folder in (cache, variable, given):
        write_cifar_parquet(folder / "cifar10", shards=1)
        found = find_cifar(info, given)
        files = [file.relative_to(folder / "cifar10").name for file in (*found.train, *found.test)]
        assert files == ["train-00000-of-00001.parquet", "test-00000-of-00001.parquet"]


def test_the_second_load_reads_the_cache_and_the_place_is_logged(small_cifar10, monkeypatch, caplog):
    with caplog.at_level(logging.INFO, "nls_tune"):
        first = load_source("cifar10", data_dir=small_cifar10, progress=False)
    assert str(small_cifar10 / "cifar10") in caplog.text
    monkeypatch.setattr("nls_tune.datasets.cifar.read_images", None)
    second = load_source("cifar10", data_dir=small_cifar10, progress=False)
    for source in (first, second):
        check_small(source)
        assert source.info is DATASETS["cifar10"]
        assert source.human_labels == {}
    assert second.fingerprint == first.fingerprint


def remove(name):
    return lambda folder: (folder / name).unlink()


def hold_the_test_set_twice(folder):
    for shard in folder.glob("train-*"):
        shard.unlink()
    shutil.copy(folder / "test-00000-of-00001.parquet", folder / "train-00000-of-00001.parquet")


def hold_cifar100(folder):
    shutil.rmtree(folder)
    write_cifar_parquet(folder, num_classes=100, label_column="fine_label")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("train-00000-of-00002.parquet"), r"put train-00000-of-00002\.parquet there"),
        (remove("test-00000-of-00001.parquet"), r"has train-\*\.parquet but no test-\*\.parquet; put both there"),
        (hold_the_test_set_twice, r"cifar10 has 40 training samples, but the files in .* have 20"),
        (hold_cifar100, r"needs the label column label, .*not the file of this dataset"),
    ],
)
def test_other_files_than_those_of_the_dataset_are_refused(small_cifar10, change, message):
    change(small_cifar10 / "cifar10")
    with pytest.raises(InputError, match=message):
        load_source("cifar10", data_dir=small_cifar10, progress=False)


@pytest.mark.parametrize(("damage", "message"), [("change", "published MD5"), ("remove", "is missing")])
@pytest.mark.parametrize("name", ["data_batch_1", "batches.meta"])
def test_a_damaged_file_of_torchvision_s_is_named(batches, tmp_path, damage, message, name):
    write_batches(tmp_path / "cifar-10-batches-py", batches[0])
    file = tmp_path / "cifar-10-batches-py" / name
    if damage == "change":
        file.write_bytes(file.read_bytes()[:-1] + b"!")
    else:
        file.unlink()
    with pytest.raises(InputError, match=rf"{name} .*{message}"):
        load_source("cifar10", data_dir=tmp_path, progress=False)


@pytest.mark.parametrize("given", [True, False])
def test_what_is_nowhere_is_downloaded_once(archive, tmp_path, given):
    content, kind = archive
    data_dir = tmp_path / "new" if given else None
    folder = data_dir or tmp_path / "cache" / "nls_tune" / "data"
    if data_dir:
        data_dir.mkdir()
    with FileServer(content, break_after=[1_000]).running() as server:
        kind.url = server.url
        for _ in range(2):
            check_small(load_source("cifar10", data_dir=data_dir, progress=False))
    assert server.requests == [None, "bytes=1000-"]
    assert sorted(path.name for path in folder.glob("[!.]*")) == ["cifar-10-batches-py"]
    assert list(folder.glob(".*.part")) == []


def test_a_wrong_archive_is_refused(archive, tmp_path):
    content, kind = archive
    with FileServer(content[:-1]).running() as server:
        kind.url = server.url
        with pytest.raises(InputError, match=rf"its checksum is md5:.* and not md5:{kind.tgz_md5}"):
            load_source("cifar10", data_dir=tmp_path, progress=False)
    assert not (tmp_path / "cifar-10-batches-py").exists()


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "cifar10n", "cifar100n"])
def test_without_a_connection_the_files_the_places_and_the_way_out_are_named(name, tmp_path, monkeypatch):
    from torchvision import datasets

    monkeypatch.setenv("NLS_TUNE_DATA", str(tmp_path / "variable"))
    images = name.removesuffix("n")
    (tmp_path / "given").mkdir()
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[images]
        monkeypatch.setattr(kind, "url", f"http://127.0.0.1:{taken.getsockname()[1]}/cifar.tar.gz")
        with pytest.raises(InputError) as caught:
            load_source(name, data_dir=tmp_path / "given", progress=False)
    message = str(caught.value)
    folder = {"cifar10": "cifar-10-batches-py/", "cifar100": "cifar-100-python/"}[images]
    places = [str(tmp_path / name) for name in ("given", "variable", "cache/nls_tune/data")]
    parquet = [f"{images}/train-*.parquet", f"{images}/test-*.parquet"]
    for part in (*parquet, folder, *places, "no connection", "--data-dir", "NLS_TUNE_DATA"):
        assert part in message
    assert "\n" not in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_take_the_download_is_named(archive, tmp_path):
    (tmp_path / "given").mkdir(0o555)
    with pytest.raises(InputError, match=r"cannot put cifar-10-batches-py into .*given"):
        load_source("cifar10", data_dir=tmp_path / "given", progress=False)


@pytest.mark.parametrize("name", ["twonorm", "cifar10", "cifar100n"])
@pytest.mark.parametrize(("place", "what"), [("mistyped", "does not"), ("file", "is a file")])
def test_a_mistyped_folder_is_named_and_nothing_is_made_there(small_cifar10, tmp_path, monkeypatch, name, place, what):
    monkeypatch.setenv("NLS_TUNE_DATA", str(small_cifar10))
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=rf"--data-dir must be a folder that exists, .*{place} {what}; name another"):
        load_source(name, data_dir=tmp_path / place, progress=False)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("images", "inside"), [("cifar10", "plain_text"), ("cifar100", "cifar100")])
def test_a_repository_of_the_hub_is_found_in_the_folder_and_as_the_folder(small, tmp_path, images, inside):
    place = tmp_path / images / inside
    write_cifar_parquet(place, num_classes=100 if images == "cifar100" else 10)
    for given in (tmp_path, tmp_path / images, place):
        found = find_cifar(DATASETS[images], given)
        assert found is not None
        assert found.folder == place
