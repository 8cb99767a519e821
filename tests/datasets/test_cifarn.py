import dataclasses
import hashlib
import socket

import numpy as np
import pytest
from fake_cifar import NUM_TRAIN, encode, fake_images, write_cifar_parquet, write_parquet
from file_server import FileServer

from nls_tune.datasets import cifarn, load_dataset, load_source
from nls_tune.errors import InputError

CLEAN = np.arange(NUM_TRAIN) % 10


def human_content() -> dict[str, np.ndarray]:
    keys = ("aggre_label", "worse_label", "random_label1", "random_label2", "random_label3")
    return {"clean_label": CLEAN} | {key: (CLEAN + i) % 10 for i, key in enumerate(keys)}


@pytest.fixture
def write_labels(monkeypatch):
    """Write a label file, and make its SHA-256 the published one."""
    import torch

    def write(file, content) -> bytes:
        file.parent.mkdir(parents=True, exist_ok=True)
        # Tensors: arrays that numpy 2 writes have a name that the published files, written by numpy 1, do not.
        tensors = {k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in content.items()}
        torch.save(tensors, file)
        spec = cifarn.LABEL_FILES["cifar10n"]
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        monkeypatch.setitem(cifarn.LABEL_FILES, "cifar10n", dataclasses.replace(spec, sha256=sha256))
        return file.read_bytes()

    return write


@pytest.mark.parametrize("place", [".", "cifar-n"])
def test_every_label_set_is_found_under_its_name(small_cifar10, write_labels, place, monkeypatch):
    write_labels(small_cifar10 / place / "CIFAR-10_human.pt", human_content())
    load_source("cifar10n", data_dir=small_cifar10, progress=False)
    monkeypatch.setattr(cifarn, "_load", None)  # the second load needs no torch
    source = load_source("cifar10n", data_dir=small_cifar10, progress=False)
    assert list(source.human_labels) == ["aggre", "random1", "random2", "random3", "worst"]
    for name, shift in {"aggre": 0, "worst": 1, "random1": 2, "random2": 3, "random3": 4}.items():
        assert source.human_labels[name].tolist() == ((CLEAN + shift) % 10).tolist()
        assert source.human_labels[name].dtype == np.int64
    data = load_dataset("cifar10n", "human:worse", data_dir=small_cifar10, progress=False)
    assert (data.noise_level, data.noise_rate) == ("human:worst", 1.0)


def test_the_clean_labels_are_compared_element_by_element(small_cifar10, write_labels):
    swapped = CLEAN.copy()
    swapped[[6, 7]] = swapped[[7, 6]]  # the same sum, the same histogram
    write_labels(small_cifar10 / "CIFAR-10_human.pt", human_content() | {"clean_label": swapped})
    message = r"2 of 40 differ, the first at index 6 \(7 in the file, 6 with the images\)"
    for _ in range(2):  # the second time from the cache
        with pytest.raises(InputError, match=message):
            load_source("cifar10n", data_dir=small_cifar10, progress=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({key: values[:-1] for key, values in human_content().items()}, r"each of the 40 images, but has 39"),
        ({"worse_label": None}, r"a list of whole numbers under 'worse_label'"),
        ({"worse_label": CLEAN / 2}, r"a list of whole numbers under 'worse_label'"),
        ({"worse_label": CLEAN + 1}, r"'worse_label' in .* must be 0 to 9"),
        ({"worse_label": CLEAN - 1}, r"'worse_label' in .* must be 0 to 9"),
    ],
)
def test_strange_content_is_refused(small_cifar10, write_labels, change, message):
    content = {key: value for key, value in (human_content() | change).items() if value is not None}
    write_labels(small_cifar10 / "CIFAR-10_human.pt", content)
    with pytest.raises(InputError, match=message):
        load_source("cifar10n", data_dir=small_cifar10, progress=False)


def test_code_in_the_file_is_not_run(small_cifar10, write_labels, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    write_labels(small_cifar10 / "CIFAR-10_human.pt", human_content() | {"extra": Evil()})
    (tmp_path / "owned").unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"CIFAR-10_human\.pt holds more than arrays of numbers or is damaged"):
        load_source("cifar10n", data_dir=small_cifar10, progress=False)
    assert not (tmp_path / "owned").exists()


def test_a_file_with_another_checksum_is_refused_unread(small_cifar10, monkeypatch):
    monkeypatch.setattr(cifarn, "_load", None)
    file = small_cifar10 / "CIFAR-10_human.pt"
    file.write_bytes(b"something")
    expected = cifarn.LABEL_FILES["cifar10n"].sha256
    with pytest.raises(InputError, match=rf"{file} must have the checksum sha256:{expected}, but has sha256:"):
        load_source("cifar10n", data_dir=small_cifar10, progress=False)


def test_batches_in_the_order_of_the_hub_are_put_right_and_said(small, write_labels, tmp_path, caplog):
    images, labels = fake_images(NUM_TRAIN, 1)
    order = np.concatenate([np.split(np.arange(NUM_TRAIN), 5)[batch] for batch in (3, 2, 1, 4, 0)])
    for folder, rows in (("python", np.arange(NUM_TRAIN)), ("hub", order)):
        place = tmp_path / folder / "cifar10" / ("plain_text" if folder == "hub" else "")
        write_cifar_parquet(place)
        for shard in place.glob("train-*"):
            shard.unlink()
        write_parquet(place / "train-00000-of-00001.parquet", [encode(images[i]) for i in rows], labels[rows])
        write_labels(tmp_path / folder / "CIFAR-10_human.pt", human_content())
    python, hub = (load_source("cifar10n", data_dir=tmp_path / name, progress=False) for name in ("python", "hub"))
    (line,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert line.endswith("the batches of the files in the order 5, 3, 2, 1, 4")
    assert hub.fingerprint == python.fingerprint
    assert np.array_equal(hub.inputs, python.inputs)
    assert np.array_equal(hub.labels, CLEAN)
    assert np.array_equal(hub.human_labels["worst"], python.human_labels["worst"])


def test_the_file_is_downloaded_from_a_fixed_commit(small_cifar10, write_labels, tmp_path, monkeypatch):
    assert "/49df7d8a69e355470c77c1c2f2424916325a394b/" in cifarn.LABELS_URL
    content = write_labels(tmp_path / "published.pt", human_content())
    with FileServer(content).running() as server:
        monkeypatch.setattr(cifarn, "LABELS_URL", server.url.removesuffix("file.bin") + "data/")
        for _ in range(2):
            source = load_source("cifar10n", data_dir=small_cifar10, progress=False)
    assert server.paths == ["/data/CIFAR-10_human.pt"]
    assert (small_cifar10 / "cifar-n" / "CIFAR-10_human.pt").read_bytes() == content
    assert source.human_labels["aggre"].tolist() == CLEAN.tolist()


def test_without_a_connection_the_file_the_places_and_the_way_out_are_named(small_cifar10, monkeypatch):
    with socket.socket() as taken:  # bound and not listening
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setattr(cifarn, "LABELS_URL", f"http://127.0.0.1:{taken.getsockname()[1]}/")
        with pytest.raises(InputError) as caught:
            load_source("cifar10n", data_dir=small_cifar10, progress=False)
    for part in ("CIFAR-10_human.pt", str(small_cifar10), "cifar-n/", "no connection", "--data-dir", "NLS_TUNE_DATA"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
