"""Own images decoded once, into a file of the cache; and images that stay there."""

import logging
import os
import pickle
import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from own_files import image_table, labels_of, pixels, write_flat, write_folder, write_image_parquet, write_saved

from nls_tune import Data, InputError
from nls_tune.datasets import Source, image_cache, load_own, make_noisy
from nls_tune.datasets.mapped import STREAM_VARIABLE, MappedImages, open_images
from nls_tune.datasets.source import input_statistics
from nls_tune.noise import parse_noise_level

MAPPED = {STREAM_VARIABLE: "0"}


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """The numbers of pictures that were decoded, decoding by decoding."""
    counts: list[int] = []
    decode = image_cache.decode

    def counting(parts, *arguments, **more):
        counts.append(sum(map(len, parts)))
        return decode(parts, *arguments, **more)

    monkeypatch.setattr(image_cache, "decode", counting)
    return counts


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_folder(tmp_path / "photos", pixels(40), labels_of(40))


@pytest.fixture
def entries(tmp_path):
    place = tmp_path / "cache" / "nls_tune" / "images"
    return lambda: [path for path in place.iterdir() if not path.name.startswith(".")]


def load(data: Data, **environment: str) -> Source:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return load_own(data, progress=False)


def assert_same(first: Source, second: Source) -> None:
    for name in ("inputs", "labels", "test_inputs", "test_labels", "input_mean", "input_std"):
        assert np.array_equal(np.asarray(getattr(first, name)), np.asarray(getattr(second, name))), name
    assert first.fingerprint == second.fingerprint
    notes = [[note for note in source.own.notes if "stay in" not in note] for source in (first, second)]
    assert notes[0] == notes[1]


# The cache


def test_the_same_images_are_decoded_once_wherever_they_lie(folder, tmp_path, decoded):
    first = load(Data.from_folder(folder, test=0.2))
    assert decoded == [40]
    os.utime(folder / "cat" / "000.png", ns=(1, 1))
    assert_same(load(Data.from_folder(folder, test=0.2)), first)
    assert_same(load(Data.from_folder(shutil.copytree(folder, tmp_path / "moved"), test=0.2)), first)
    load(Data.from_folder(folder, test=0.2), **MAPPED)
    assert decoded == [40]
    load(Data.from_folder(folder, test=0.2, image_size=4))
    (folder / "cat" / "000.png").write_bytes((folder / "dog" / "001.png").read_bytes())
    load(Data.from_folder(folder, test=0.2))
    assert decoded == [40, 40, 40]


def damage_pixels(entry: Path) -> None:
    content = bytearray((entry / "images.npy").read_bytes())
    content[-1] ^= 1
    (entry / "images.npy").write_bytes(content)


def foreign(entry: Path) -> None:
    np.save(entry / "images.npy", np.zeros((40, 3, 4, 16), np.uint8))


DAMAGE = {
    "torn": lambda entry: (entry / "images.npy").write_bytes((entry / "images.npy").read_bytes()[:-5]),
    "longer": lambda entry: (entry / "images.npy").write_bytes((entry / "images.npy").read_bytes() + b"x"),
    "changed": damage_pixels,
    "foreign": foreign,
    "empty": lambda entry: (entry / "images.npy").write_bytes(b""),
    "no digests": lambda entry: (entry / "digests.npy").unlink(),
    "other digests": lambda entry: np.save(entry / "digests.npy", np.zeros((40, 32), np.uint8)),
    "no facts": lambda entry: (entry / "meta.json").unlink(),
    "torn facts": lambda entry: (entry / "meta.json").write_text('{"shape": [40'),
}


@pytest.mark.parametrize("environment", [{}, MAPPED], ids=["small", "mapped"])
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_made_again(folder, entries, decoded, damage, environment):
    data = Data.from_folder(folder, test=0.2)
    first = load(data, **environment)
    expected = np.array(first.inputs)
    damage(entries()[0])
    for _ in range(2):
        assert np.array_equal(np.asarray(load(data, **environment).inputs), expected)
    assert decoded == [40, 40]
    assert len(entries()) == 1


def test_pictures_that_cannot_be_read_are_known_the_second_time(folder, decoded):
    (folder / "cat" / "torn.png").write_bytes(b"no image")
    (folder / "cat" / "grey.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(InputError, match=r"2 of 42 images .*grey.png: it is empty.*torn.png: not an image"):
            load(Data.from_folder(folder))
        source = load(Data.from_folder(folder, skip_unreadable=True))
        assert len(source.labels) == 40
        assert any("2 images" in note and "left out" in note for note in source.own.notes)
    assert decoded == [42]


def test_processes_that_want_the_same_images_decode_them_once(folder, decoded):
    found: list[Source] = []
    threads = [threading.Thread(target=lambda: found.append(load_own(Data.from_folder(folder), progress=False)))
               for _ in range(3)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decoded == [40]
    assert_same(found[0], found[1])
    assert_same(found[0], found[2])


def test_what_is_unused_or_left_behind_goes(folder, entries, tmp_path):
    load(Data.from_folder(folder))
    (old,) = entries()
    place, month = old.parent, 31 * 86_400
    left = place / f".{old.name}-abc"
    left.mkdir()
    unpacked = place / ".unpacked-abc"
    unpacked.write_bytes(b"1")
    for path in (left, unpacked):
        os.utime(path, (time.time() - month, time.time() - month))
    load(Data.from_folder(folder, image_size=4))
    assert not left.exists()
    assert not unpacked.exists()
    assert len(entries()) == 2  # both are in use
    os.utime(old, (time.time() - month, time.time() - month))
    load(Data.from_folder(folder, image_size=5))
    assert old not in entries()
    assert len(entries()) == 2


def test_a_full_disk_is_said_in_one_line(folder, entries, decoded, monkeypatch, caplog):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    image_cache.warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        small = load(Data.from_folder(folder))
    assert isinstance(small.inputs, np.ndarray)
    assert "0.0 GB are free there" in caplog.text
    with pytest.raises(
        InputError, match=r"the decoded images, 0.0 GB, cannot be kept in .*set XDG_CACHE_HOME"
    ) as error:
        load(Data.from_folder(folder), **MAPPED)
    assert "\n" not in str(error.value)
    assert not entries()


def test_small_arrays_leave_nothing_behind(tmp_path, decoded):
    load(Data.from_arrays(pixels(40), np.arange(40) % 2))
    assert decoded == [40]
    assert not (tmp_path / "cache" / "nls_tune" / "images").exists()


# Images that stay in the file


def containers(tmp_path: Path, images: np.ndarray) -> dict[str, Data]:
    labels = labels_of(len(images))
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    np.savez_compressed(tmp_path / "packed.npz", images=images, labels=labels)
    np.save(tmp_path / "x.npy", images)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(images))
    np.save(tmp_path / "y.npy", labels)
    write_flat(tmp_path / "flat", images, labels, tmp_path / "flat.csv")
    saved = write_saved(tmp_path / "saved", image_table(images, labels))
    return {
        "folder": Data.from_folder(write_folder(tmp_path / "folder", images, labels), test=0.2),
        "flat": Data.from_folder(tmp_path / "flat", table=tmp_path / "flat.csv", label="kind", test=0.2),
        "parquet": Data.from_table(
            write_image_parquet(tmp_path / "x.parquet", images, labels), label="label", test=0.2
        ),
        "saved": Data.from_table(saved, label="label", test=0.2),
        "npz": Data(arrays=tmp_path / "x.npz", test=0.2),
        "packed": Data(arrays=tmp_path / "packed.npz", test=0.2),
        "npy": Data(arrays=tmp_path / "x.npy", label=str(tmp_path / "y.npy"), test=0.2),
        "fortran": Data(arrays=tmp_path / "fortran.npy", label=str(tmp_path / "y.npy"), test=0.2),
        "memory": Data.from_arrays(images, labels, test=0.2),
    }


@pytest.mark.parametrize("grey", [False, True])
def test_mapped_images_are_those_in_memory_whatever_the_container(tmp_path, grey):
    images = pixels(40)
    images[7] = images[3]  # equal ones stay together
    if grey:
        images = np.repeat(images[..., :1], 3, axis=3)
    found = containers(tmp_path, images)
    expected = load(found["folder"])
    assert expected.inputs.shape[1:] == (1 if grey else 3, 8, 8)
    for name, data in found.items():
        source = load(data, **MAPPED)
        assert isinstance(source.inputs, MappedImages), name
        assert any("the decoded images, 0.0 GB, stay in" in note for note in source.own.notes)
        assert_same(source, expected)


def test_noise_splits_and_statistics_of_mapped_images_are_the_same(folder):
    data = Data.from_folder(folder, test=0.3, clean_labels=None)
    held, mapped = load(data), load(data, **MAPPED)
    for level in ("given", "symmetric:0.3", "instance:0.4"):
        first, second = (
            make_noisy(source.with_test_size(6, seed=1), parse_noise_level(level), train_size=10)
            for source in (held, mapped)
        )
        assert np.array_equal(first.noisy_labels, second.noisy_labels)
        assert first.fingerprint == second.fingerprint
        assert np.array_equal(first.test_inputs, np.asarray(second.test_inputs))
        assert np.array_equal(first.inputs[first.train_indices], np.asarray(second.inputs[second.train_indices]))
    some = np.arange(5, 20)
    for one, other in zip(input_statistics(held.inputs[some]), input_statistics(mapped.inputs[some]), strict=True):
        assert np.array_equal(one, other)


def test_a_table_of_several_groups_and_files_is_read_piece_by_piece(tmp_path):
    import pyarrow.parquet as pq

    images, labels = pixels(200), labels_of(200)
    table = image_table(images, labels)
    (tmp_path / "parts").mkdir()
    pq.write_table(table.slice(0, 130), tmp_path / "parts" / "a.parquet", row_group_size=50)
    pq.write_table(table.slice(130), tmp_path / "parts" / "b.parquet", row_group_size=7)
    source = load(Data.from_table(tmp_path / "parts", label="label"), **MAPPED)
    assert_same(source, load(Data.from_arrays(images, labels)))


def test_other_processes_get_the_name_of_the_file(folder):
    inputs = load(Data.from_folder(folder), **MAPPED).inputs
    sent = pickle.dumps(inputs)
    assert len(sent) < 2000 < inputs.nbytes
    there = pickle.loads(sent)
    assert np.array_equal(np.asarray(there), np.asarray(inputs))
    assert np.array_equal(there[3], np.asarray(inputs)[3])
    assert np.array_equal(np.asarray(there[2:5][np.array([2, 0])]), np.asarray(inputs)[[4, 2]])


def test_images_that_are_gone_are_said_in_one_line(folder, entries):
    inputs = load(Data.from_folder(folder), **MAPPED).inputs
    shutil.rmtree(entries()[0])
    assert np.asarray(inputs).shape == inputs.shape  # a process that has them goes on
    open_images.cache_clear()  # another process
    with pytest.raises(InputError, match="are gone; start the same command again"):
        np.asarray(inputs)


def test_a_variable_that_is_no_number_is_refused(folder):
    with pytest.raises(InputError, match="NLS_TUNE_STREAM_BYTES must be a number of bytes, got 'a lot'"):
        load(Data.from_folder(folder), **{STREAM_VARIABLE: "a lot"})
