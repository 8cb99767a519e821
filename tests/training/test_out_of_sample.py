"""Which models predict a sample, and at which of their epochs."""

import dataclasses

import numpy as np
import pytest

from nls_tune import InputError, TrainingSettings, load_dataset
from nls_tune.training import out_of_sample
from nls_tune.training.out_of_sample import predict_out_of_sample

SETTINGS = TrainingSettings(model="mlp", epochs=4, lr=0.003, warmup_lr=0.01, batch_size=32)


@pytest.fixture(scope="module")
def small():
    dataset = load_dataset("twonorm", "symmetric:0.2", train_size=90)
    return dataclasses.replace(dataset, val_indices=dataset.val_indices[:30])


def test_each_sample_is_predicted_once_by_a_model_that_has_not_seen_it(small, monkeypatch):
    folds = []

    def predict(fold, settings, device, report, metric, way_out):
        folds.append(fold)
        return np.tile(fold.val_indices[:, None], 2), 3

    monkeypatch.setattr(out_of_sample, "_predict_fold", predict)
    found = predict_out_of_sample(small, SETTINGS, folds=4, device="cpu")
    rows = np.sort(np.concatenate([small.train_indices, small.val_indices]))
    assert found.best_epochs == (3, 3, 3, 3)
    assert np.array_equal(found.rows, rows)
    assert np.array_equal(found.probabilities[:, 0], rows)
    for fold in folds:
        assert np.array_equal(np.union1d(fold.train_indices, fold.val_indices), rows)
        assert fold.num_train + fold.num_val == 120
        assert (fold.test_inputs, fold.test_labels) == (None, None)


def test_what_no_split_divides_is_in_one_fold(small, monkeypatch):
    """Of 12 samples each, all with one label: a network that has seen one of them knows the others."""
    rows, folds = np.sort(np.concatenate([small.train_indices, small.val_indices])), []
    units = np.zeros(len(small.noisy_labels), dtype=np.int64)
    units[rows] = np.arange(120) // 12

    def predict(fold, *rest):
        folds.append(fold)
        return np.zeros((fold.num_val, 2)), 3

    monkeypatch.setattr(out_of_sample, "_predict_fold", predict)
    grouped = dataclasses.replace(small, units=units)
    predict_out_of_sample(grouped, SETTINGS, folds=3, device="cpu")
    assert len(folds) == 3
    for fold in folds:
        assert not set(units[fold.train_indices]) & set(units[fold.val_indices])
        assert fold.num_val in (36, 48)
    with pytest.raises(InputError, match="--folds must be from 2 to 10, got 11"):
        predict_out_of_sample(grouped, SETTINGS, folds=11, device="cpu")


def test_of_a_rate_only_epochs_after_the_warm_up_predict(small):
    settings = SETTINGS.model_copy(update={"smooth_rate": -1.0, "warmup_epochs": 3, "lr": 1e-6})
    found = predict_out_of_sample(small, settings, folds=2, device="cpu")
    assert found.best_epochs == (4, 4)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_a_rate_that_diverges_is_said(small):
    settings = SETTINGS.model_copy(update={"smooth_rate": -1.0, "warmup_epochs": 1, "lr": 1e30})
    with pytest.raises(InputError, match=r"smooth_rate -1 with mlp diverged in its warm-up .* rate 1e\+30; lower lr"):
        predict_out_of_sample(small, settings, folds=2, device="cpu")
