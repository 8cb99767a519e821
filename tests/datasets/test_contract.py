"""What every dataset keeps to, whatever it is made from."""

import numpy as np
import pytest

from nls_tune.datasets import DATASETS, NoisyDataset, Source, load_source, make_noisy
from nls_tune.noise import parse_noise_level

REAL = [pytest.mark.real_data, pytest.mark.slow]
NAMES = [pytest.param(name, marks=REAL) if name.startswith("cifar") else name for name in DATASETS]


@pytest.fixture(params=NAMES)
def source(request) -> Source:
    if request.param.startswith("cifar"):
        return request.getfixturevalue("load_real")(request.param)
    return load_source(request.param, progress=False)


@pytest.fixture
def dataset(source) -> NoisyDataset:
    return make_noisy(source, parse_noise_level(source.info.default_levels[-1]))


def test_shapes_and_types_are_those_stated(source):
    info = source.info
    images = len(info.input_shape) == 3
    for inputs, labels, count in (
        (source.inputs, source.labels, info.num_labelled),
        (source.test_inputs, source.test_labels, info.num_test),
    ):
        assert inputs.shape == (count, *info.input_shape)
        assert inputs.dtype == (np.uint8 if images else np.float32)
        assert inputs.flags.c_contiguous
        assert labels.shape == (count,)
        assert labels.dtype == np.int64
        assert np.array_equal(np.unique(labels), np.arange(info.num_classes))
        assert np.isfinite(inputs).all() if not images else inputs.max() > 200
    assert tuple(source.human_labels) == info.human_names
    for labels in source.human_labels.values():
        assert (labels.shape, labels.dtype) == (source.labels.shape, np.int64)
        assert 0 <= labels.min() <= labels.max() < info.num_classes


def test_statistics_standardise_the_inputs(source):
    assert source.input_mean.shape == source.input_std.shape == (source.info.input_shape[0],)
    assert source.input_mean.dtype == source.input_std.dtype == np.float32
    assert (source.input_std > 0).all()
    sample = source.inputs[:2_000].astype(np.float32)
    if source.inputs.dtype == np.uint8:
        sample = np.moveaxis(sample / 255, 1, -1)
    standardised = (sample - source.input_mean) / source.input_std
    axes = tuple(range(standardised.ndim - 1))
    assert standardised.mean(axis=axes) == pytest.approx(0, abs=0.15)
    assert standardised.std(axis=axes) == pytest.approx(1, abs=0.1)


def test_the_splits_have_the_default_sizes(dataset, source):
    info = source.info
    assert dataset.num_val == round(info.num_labelled * info.default_val_fraction)
    assert dataset.num_train + dataset.num_val == info.num_labelled
    assert np.intersect1d(dataset.train_indices, dataset.val_indices).size == 0


def test_labels_are_noisy_in_both_splits_alike(dataset, source):
    wrong = dataset.noisy_labels != dataset.clean_labels
    assert dataset.noise_rate == wrong.mean()
    assert dataset.noisy_labels.dtype == np.int64
    spread = 4 * np.sqrt(0.25 / dataset.num_val)
    assert wrong[dataset.val_indices].mean() == pytest.approx(wrong[dataset.train_indices].mean(), abs=spread)


def test_a_dataset_says_what_it_is(dataset, source):
    assert (dataset.name, dataset.num_classes) == (source.info.name, source.info.num_classes)
    assert dataset.input_shape == source.info.input_shape
    assert dataset.noise_level == source.info.default_levels[-1]
    assert len(dataset.fingerprint) == len(source.fingerprint) == 64
    int(dataset.fingerprint, 16)
