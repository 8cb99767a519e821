import math

import numpy as np
import pytest

from nls_tune.datasets import builtin, load_source

# A change of one of these is a change of the data: results of earlier runs can then not be compared.
FINGERPRINTS = {
    "twonorm": "3c81292c475047106e448a42fe1146441f8a66700984f288969bee6583473b7f",
    "waveform": "c9f7c24543a74ce6cc39320afa2e1d1bb82bf11cfabfa4de0dd8409e03e1ca84",
    "digits": "f6c20853cda608149c662ce481648c247b0c7dc09acc264c0e35ce0ae429befa",
}


@pytest.mark.parametrize(("name", "fingerprint"), FINGERPRINTS.items())
def test_the_data_are_the_same_on_every_machine(name, fingerprint):
    assert load_source(name).fingerprint == fingerprint


def test_twonorm_has_the_stated_means_and_its_best_rule_the_known_accuracy():
    source = load_source("twonorm")
    for inputs, labels in ((source.inputs, source.labels), (source.test_inputs, source.test_labels)):
        accuracy = np.mean((inputs.sum(axis=1) < 0) == labels)
        expected = 0.5 * (1 + math.erf(2 / math.sqrt(2)))
        assert accuracy == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / len(labels)))
    for label, sign in ((0, 1), (1, -1)):
        mean = source.inputs[source.labels == label].mean(axis=0)
        assert mean == pytest.approx(sign * 2 / math.sqrt(20), abs=5 / math.sqrt(4000))


def test_waveform_s_best_rule_has_its_known_accuracy():
    source = load_source("waveform")
    position = np.arange(1, 22)
    waves = [np.maximum(6.0 - abs(position - peak), 0) for peak in (7, 15, 11)]
    shares = (np.arange(100)[:, None] + 0.5) / 100
    inputs, labels = source.test_inputs.astype(np.float64), source.test_labels
    likelihoods = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        centres = shares * waves[i] + (1 - shares) * waves[j]
        exponents = inputs @ centres.T - (centres**2).sum(axis=1) / 2
        likelihoods.append(np.logaddexp.reduce(exponents, axis=1))
    accuracy = np.mean(np.argmax(likelihoods, axis=0) == labels)
    assert accuracy == pytest.approx(0.86, abs=0.015)  # Breiman et al. 1984 give an error of 0.14


@pytest.mark.parametrize("name", ["twonorm", "waveform"])
def test_classes_are_equally_likely(name):
    source = load_source(name)
    counts = np.bincount(source.labels)
    assert counts == pytest.approx(8000 / len(counts), abs=5 * math.sqrt(8000 / 4))


def pairs(images: np.ndarray, labels: np.ndarray) -> list[tuple[bytes, int]]:
    return sorted((image.tobytes(), label) for image, label in zip(images, labels.tolist(), strict=True))


def test_without_its_file_the_digits_come_from_scikit_learn_itself(monkeypatch):
    expected = builtin._digits_table()
    monkeypatch.setattr(builtin.importlib.util, "find_spec", lambda name: None)
    np.testing.assert_array_equal(builtin._digits_table(), expected)


def test_digits_are_those_of_scikit_learn_scaled_to_bytes():
    from sklearn.datasets import load_digits

    source, bunch = load_source("digits"), load_digits()
    images = np.concatenate([source.inputs, source.test_inputs])[:, 0]
    labels = np.concatenate([source.labels, source.test_labels])
    assert (images.min(), images.max()) == (0, 255)
    scaled = np.floor(bunch.images * 255 / 16 + 0.5).astype(np.uint8)
    assert pairs(images, labels) == pairs(scaled, bunch.target)
    assert not set(pairs(source.inputs, source.labels)) & set(pairs(source.test_inputs, source.test_labels))
    assert np.bincount(source.test_labels) == pytest.approx(np.bincount(bunch.target) / 5, abs=1)
