import logging
import os
import time

import numpy as np
import pytest

from nls_tune.datasets import cache
from nls_tune.datasets.cache import cached_arrays


class Builder:
    """Counts how often it builds."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self):
        self.count += 1
        arrays = {"inputs": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "labels": np.array([1, 0])}
        return arrays, {"fingerprint": "abc"}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "data.bin"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def entries(tmp_path):
    """The folder of the entries, and what is in it."""
    folder = tmp_path / "cache" / "nls_tune" / "prepared"
    return lambda: sorted(path.name for path in folder.iterdir()), folder


def check(result) -> None:
    arrays, facts = result
    assert np.array_equal(arrays["inputs"], np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
    assert arrays["labels"].tolist() == [1, 0]
    assert facts == {"fingerprint": "abc"}


def test_the_second_time_nothing_is_built_and_entries_of_other_names_stay(file, entries):
    build = Builder()
    for name in ("cifar10", "cifar10n", "cifar100") * 2:
        check(cached_arrays(name, [file], build))
    assert build.count == len(entries[0]()) == 3


@pytest.mark.parametrize("change", ["content", "time", "place"])
def test_changed_files_are_read_again_and_the_old_entry_goes(file, entries, change):
    build = Builder()
    cached_arrays("cifar10", [file], build)
    before = entries[0]()
    if change == "content":
        file.write_bytes(b"more content")
    elif change == "time":
        os.utime(file, ns=(1, 1))
    else:
        file = file.rename(file.with_name("other.bin"))
    check(cached_arrays("cifar10", [file], build))
    assert build.count == 2
    assert len(entries[0]()) == 1
    assert entries[0]() != before


def flip_a_bit(entry):
    content = bytearray((entry / "inputs.npy").read_bytes())
    content[-1] ^= 1
    (entry / "inputs.npy").write_bytes(content)


DAMAGE = {
    "truncated": lambda entry: (entry / "inputs.npy").write_bytes((entry / "inputs.npy").read_bytes()[:-5]),
    "changed": flip_a_bit,
    "missing": lambda entry: (entry / "labels.npy").unlink(),
    "no facts": lambda entry: (entry / "meta.json").unlink(),
    "torn facts": lambda entry: (entry / "meta.json").write_text('{"arrays": {"inp'),
    "pickle": lambda entry: np.save(entry / "labels.npy", np.array([{}], dtype=object), allow_pickle=True),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_entry_is_built_again(file, entries, damage):
    build = Builder()
    cached_arrays("cifar10", [file], build)
    names, folder = entries
    damage(folder / names()[0])
    check(cached_arrays("cifar10", [file], build))
    check(cached_arrays("cifar10", [file], build))
    assert build.count == 2


def test_a_cache_that_cannot_be_written_is_a_warning_once(file, tmp_path, caplog):
    (tmp_path / "cache").write_bytes(b"")  # a file where the folder should be
    build = Builder()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            check(cached_arrays("cifar10", [file], build))
    assert build.count == 2
    assert len(caplog.records) == 1
    assert "XDG_CACHE_HOME" in caplog.text


def test_what_a_killed_process_left_is_removed_in_time(file, entries):
    folder = entries[1]
    folder.mkdir(parents=True)
    old, new = folder / ".cifar10-a-x", folder / ".cifar10-a-y"
    old.mkdir()
    new.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    cached_arrays("cifar10", [file], Builder())
    assert not old.exists()
    assert new.exists()


def test_another_process_that_made_the_same_entry_is_no_problem(file, entries, monkeypatch, caplog):
    build = Builder()

    def slow():
        cached_arrays("cifar10", [file], Builder())
        # From here on the entry exists, and removing it is made to fail, as if it had just appeared.
        monkeypatch.setattr(cache.shutil, "rmtree", lambda *_, **__: None)
        return build()

    with caplog.at_level(logging.WARNING):
        check(cached_arrays("cifar10", [file], slow))
    assert caplog.records == []
