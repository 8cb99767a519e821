"""The loss in a plain PyTorch loop: a warm-up with cross-entropy, then a smooth rate with a learning rate of its own.

python examples/plain_pytorch.py
"""

import torch
from noisy_blobs import make_blobs
from torch import nn

from nls_tune import GLSLoss


def main() -> None:
    """Train with cross-entropy and with a smooth rate, and print the test accuracy of both."""
    train, test = make_blobs()
    for rate in (0.0, 0.4):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
        batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*train), batch_size=100, shuffle=True)
        for phase, epochs, lr in ((GLSLoss(0.0), 3, 0.05), (GLSLoss(rate), 7, 0.01)):
            optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9)
            for _ in range(epochs):
                for inputs, labels in batches:
                    optimizer.zero_grad()
                    phase(network(inputs), labels).backward()
                    # A negative rate has no lower bound: without this its weights may blow up.
                    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                    optimizer.step()
        with torch.no_grad():
            accuracy = (network(test[0]).argmax(1) == test[1]).float().mean()
        print(f"rate {rate:g}: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
