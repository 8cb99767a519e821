import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nls_tune.datasets import DatasetInfo, Source, load_dataset, make_noisy
from nls_tune.datasets.source import hash_arrays, input_statistics, make_source
from nls_tune.errors import InputError
from nls_tune.noise import parse_noise_level

NOISE = parse_noise_level("symmetric:0.4")


def tiny(num_labelled: int = 200, num_classes: int = 4) -> Source:
    rng = np.random.default_rng(0)
    info = DatasetInfo("tiny", num_classes, (3,), num_labelled=num_labelled, num_test=10)
    labels = np.arange(num_labelled) % num_classes
    inputs = rng.standard_normal((num_labelled + 10, 3)).astype(np.float32)
    return make_source(info, inputs[10:], labels, inputs[:10], np.arange(10) % num_classes)


def test_the_split_is_the_same_on_every_machine():
    fingerprint = "8144db89e9bf9092bdcb755ebc0bc62a1c86416f435f95575b8f3f887b170ad1"
    assert load_dataset("twonorm", "clean").fingerprint == fingerprint


@given(st.integers(10, 300), st.floats(0.02, 0.98), st.integers(0, 2**40), st.integers(1, 1_000))
def test_splits_are_disjoint_stratified_nested_and_of_exact_size(total, fraction, seed, wish):
    source = tiny(total)
    num_val = round(total * fraction)
    if not 0 < num_val < total:
        return
    full = make_noisy(source, NOISE, val_fraction=fraction, split_seed=seed)
    assert full.num_val == num_val
    assert sorted([*full.train_indices, *full.val_indices]) == list(range(total))
    noisy = full.noisy_labels
    for indices in (full.train_indices, full.val_indices):
        assert indices.dtype == np.int64
        assert np.all(np.diff(indices) > 0)
        counts = np.bincount(noisy[indices], minlength=4)
        assert np.abs(counts - np.bincount(noisy, minlength=4) * len(indices) / total).max() < 1
    if full.num_train < 8:
        return
    size = 4 + wish % (full.num_train - 4)
    part = make_noisy(source, NOISE, val_fraction=fraction, split_seed=seed, train_size=size)
    larger = make_noisy(source, NOISE, val_fraction=fraction, split_seed=seed, train_size=size + 1)
    assert part.num_train == size
    assert set(part.train_indices) < set(larger.train_indices) <= set(full.train_indices)
    assert np.array_equal(part.val_indices, full.val_indices)
    assert part.noise_rate == full.noise_rate


def test_everything_but_the_seeds_stays_when_a_seed_changes():
    options = ({}, {}, {"split_seed": 1}, {"noise_seed": 1})
    first, again, other_split, other_noise = (make_noisy(tiny(), NOISE, **more) for more in options)
    assert first.fingerprint == again.fingerprint
    assert np.array_equal(first.val_indices, again.val_indices)
    assert np.array_equal(first.noisy_labels, other_split.noisy_labels)
    assert not np.array_equal(first.val_indices, other_split.val_indices)
    assert not np.array_equal(first.noisy_labels, other_noise.noisy_labels)
    assert len({first.fingerprint, other_split.fingerprint, other_noise.fingerprint}) == 3


def test_the_source_stays_clean_and_is_not_copied():
    source = tiny()
    before = source.labels.copy()
    data = make_noisy(source, NOISE)
    assert np.array_equal(source.labels, before)
    assert data.inputs is source.inputs
    assert not np.shares_memory(make_noisy(source, parse_noise_level("clean")).noisy_labels, source.labels)
    shuffled = dataclasses.replace(source, inputs=source.inputs[::-1].copy())
    first, second = (make_noisy(one, parse_noise_level("instance:0.4")) for one in (source, shuffled))
    assert not np.array_equal(first.noisy_labels, second.noisy_labels)  # that noise sees the inputs


def test_classes_of_few_samples():
    labels = np.array([0] * 35 + [1, 1, 1, 2, 3])
    data = make_noisy(dataclasses.replace(tiny(40), labels=labels), parse_noise_level("clean"), val_fraction=0.1)
    assert (data.num_train, data.num_val) == (36, 4)
    assert set(labels[data.train_indices]) == {0, 1, 2, 3}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0.0}, r"between 0 and 1, not 0"),
        ({"val_fraction": 1.0}, r"between 0 and 1, not 1"),
        ({"val_fraction": float("nan")}, r"between 0 and 1, not nan"),
        ({"val_fraction": 0.001}, r"a sample on either side.*0 for validation and 200 for training"),
        ({"val_fraction": 0.999}, r"200 for validation and 0 for training"),
        ({"train_size": 0}, r"4 to 180, not 0"),
        ({"train_size": 3}, r"4 to 180, not 3"),
        ({"train_size": 181}, r"4 to 180, not 181"),
        ({"split_seed": -1}, r"split_seed must be an integer of at least 0, not -1"),
        ({"noise_seed": -1}, r"noise_seed"),
    ],
)
def test_sizes_and_seeds_out_of_range_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        make_noisy(tiny(), NOISE, **options)
    assert "\n" not in str(caught.value)


def test_the_level_is_checked_before_anything_is_loaded():
    with pytest.raises(InputError, match="use pairflip"):
        load_dataset("cifar100", "swap:0.3", progress=False)


def test_the_statistics_of_images_count_from_0_to_1():
    images = np.random.default_rng(0).integers(0, 256, (6_001, 3, 4, 4), dtype=np.uint8)
    images[:, 2] = 51
    mean, std = input_statistics(images)
    assert mean == pytest.approx(images.mean(axis=(0, 2, 3)) / 255, abs=1e-6)
    assert std[:2] == pytest.approx(images.std(axis=(0, 2, 3))[:2] / 255, abs=1e-6)
    assert std[2] == 1  # dividing by the standard deviation of a constant would be dividing by 0
    assert mean.dtype == std.dtype == np.float32


def test_the_hash_tells_values_types_and_shapes_apart():
    values = np.arange(6, dtype=np.int64)
    others = [values[::-1], values.astype(np.int32), values.reshape(2, 3), values[:5], values[:0]]
    assert len({hash_arrays(array) for array in [values, *others]}) == 6
    assert hash_arrays(values) == hash_arrays(values.astype(">i8")) == hash_arrays(values.repeat(2)[::2])
    assert hash_arrays(values, seed="a") != hash_arrays(values)


def test_all_labels_are_the_training_and_the_validation_samples():
    split = make_noisy(tiny(), NOISE, val_fraction=0.2, train_size=50)
    both = split.on_all_labels()
    assert both.train_indices.tolist() == sorted([*split.train_indices, *split.val_indices])
    assert (both.num_train, both.train_indices.dtype) == (90, split.train_indices.dtype)
    assert both.fingerprint != split.fingerprint
    assert both.fingerprint == make_noisy(tiny(), NOISE, val_fraction=0.2, train_size=50).on_all_labels().fingerprint
    assert both.fingerprint != make_noisy(tiny(), NOISE, val_fraction=0.2, train_size=51).on_all_labels().fingerprint
    unchanged = {f.name for f in dataclasses.fields(split)} - {"train_indices", "fingerprint", "noise_rate"}
    assert all(getattr(both, name) is getattr(split, name) for name in unchanged)
    wrong = split.noisy_labels != split.clean_labels
    assert both.noise_rate == wrong[both.train_indices].mean()
    unknown = dataclasses.replace(split, clean_labels=None, noise_rate=None)
    assert unknown.on_all_labels().noise_rate is None
