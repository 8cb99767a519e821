"""The published files themselves: their counts, checksums and noise rates."""

import hashlib

import cifar_batches
import numpy as np
import pytest

from nls_tune.datasets import load_source, make_noisy
from nls_tune.noise import parse_noise_level

pytestmark = [pytest.mark.slow, pytest.mark.real_data]
PUBLISHED_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}


@pytest.mark.parametrize(
    ("name", "level", "rate"),
    [
        ("cifar10n", "human:aggre", 0.0901),
        ("cifar10n", "human:worst", 0.4021),
        ("cifar10n", "human:random1", 0.1723),
        ("cifar10n", "human:random2", 0.1812),
        ("cifar10n", "human:random3", 0.1764),
        ("cifar100n", "human:noisy", 0.4020),
    ],
)
def test_human_noise_has_the_published_rates(load_real, name, level, rate):
    data = make_noisy(load_real(name), parse_noise_level(level))
    assert data.noise_rate == pytest.approx(rate, abs=5e-5)


def test_cifar10n_has_the_images_of_cifar10(load_real):
    plain, human = load_real("cifar10"), load_real("cifar10n")
    assert human.fingerprint == plain.fingerprint
    assert np.array_equal(human.labels, plain.labels)
    assert (plain.input_mean, plain.input_std) == (
        pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4),
        pytest.approx([0.2470, 0.2435, 0.2616], abs=1e-4),
    )


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_classes_are_balanced(load_real, name):
    source = load_real(name)
    assert set(np.bincount(source.labels)) == {50_000 // source.info.num_classes}
    assert set(np.bincount(source.test_labels)) == {10_000 // source.info.num_classes}


def test_the_python_version_made_from_it_has_the_published_md5_and_loads_the_same(load_real, real_data, tmp_path):
    import pyarrow.parquet as pq

    source = load_real("cifar10")
    names = {
        split: [
            path
            for file in sorted((real_data / "cifar10").glob(f"{split}-*.parquet"))
            for path in pq.read_table(file)["img"].combine_chunks().field("path").to_pylist()
        ]
        for split in ("train", "test")
    }
    folder = tmp_path / "cifar-10-batches-py"
    cifar_batches.write_cifar10(
        folder,
        (source.inputs, source.labels, names["train"]),
        (source.test_inputs, source.test_labels, names["test"]),
    )
    written = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
    assert written == PUBLISHED_MD5
    again = load_source("cifar10", data_dir=tmp_path, progress=False)
    assert again.fingerprint == source.fingerprint
    assert np.array_equal(again.inputs, source.inputs)
    assert np.array_equal(again.labels, source.labels)
