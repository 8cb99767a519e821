"""Four Gaussian classes with wrong labels: the data of the examples with other people's loops.

python examples/noisy_blobs.py
"""

import torch

Split = tuple[torch.Tensor, torch.Tensor]


def make_blobs(samples: int = 2_000, noise: float = 0.3) -> tuple[Split, Split]:
    """Return inputs and labels of training, a share of which is wrong, and of test."""
    random = torch.Generator().manual_seed(0)
    centres = torch.randn(4, 20, generator=random)

    def draw(number: int) -> Split:
        labels = torch.randint(4, (number,), generator=random)
        return centres[labels] + 1.5 * torch.randn(number, 20, generator=random), labels

    (inputs, labels), test = draw(samples), draw(samples)
    wrong = torch.rand(samples, generator=random) < noise
    return (inputs, torch.where(wrong, (labels + 1) % 4, labels)), test


if __name__ == "__main__":
    (inputs, labels), _ = make_blobs()
    print(f"{len(labels)} training samples of {inputs.shape[1]} features in {int(labels.max()) + 1} classes")
