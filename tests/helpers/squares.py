"""A dataset of small images that a network learns in a few steps."""

import numpy as np

from nls_tune.datasets import NoisyDataset


def squares(num_train: int = 64, num_val: int = 24, num_test: int = 24, side: int = 12) -> NoisyDataset:
    """Make random images of 3 channels, 12 x 12 is the smallest that most networks take, with a bright quarter."""
    rng = np.random.default_rng(0)
    num, half = num_train + num_val + num_test, side // 2
    labels = rng.integers(4, size=num)
    images = rng.integers(0, 160, (num, 3, side, side), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        row, column = half * (label // 2), half * (label % 2)
        image[:, row : row + half, column : column + half] += 60
    held_out = num - num_test
    return NoisyDataset(
        name="squares",
        noise_level="clean",
        noise_seed=0,
        num_classes=4,
        inputs=images[:held_out],
        noisy_labels=labels[:held_out],
        clean_labels=labels[:held_out],
        train_indices=np.arange(num_train),
        val_indices=np.arange(num_train, held_out),
        test_inputs=images[held_out:] if num_test else None,
        test_labels=labels[held_out:] if num_test else None,
        input_mean=(images[:held_out].mean((0, 2, 3)) / 255).astype(np.float32),
        input_std=(images[:held_out].std((0, 2, 3)) / 255).astype(np.float32),
        noise_rate=0.0,
        fingerprint=f"squares {num_train} {num_val} {num_test} {side}",
    )
