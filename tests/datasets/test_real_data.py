"""The published files themselves: their counts, checksums and noise rates."""

import numpy as np
import pytest

from nls_tune.datasets import make_noisy
from nls_tune.noise import parse_noise_level

pytestmark = [pytest.mark.slow, pytest.mark.real_data]
#: What the Python version with the published MD5s gives too.
CIFAR10 = "e6216b9018fcebdb2fc8d67681111ecdcbcb1599320d6cfc1c4f6ff4b91839a8"


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
    assert human.fingerprint == plain.fingerprint == CIFAR10
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
