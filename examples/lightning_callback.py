"""The loss in Lightning: a callback switches to the smooth rate and its learning rate after the warm-up.

pip install lightning
python examples/lightning_callback.py
"""

import logging
import warnings

import lightning
import torch
from noisy_blobs import make_blobs
from torch import nn

from nls_tune import GLSLoss


class SwitchAfterWarmup(lightning.Callback):
    """Lets the module's ``loss`` be cross-entropy first, and then the loss at a smooth rate with a learning rate."""

    def __init__(self, warmup_epochs: int, smooth_rate: float, lr: float) -> None:
        self.warmup_epochs, self.smooth_rate, self.lr = warmup_epochs, smooth_rate, lr

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Switch when the warm-up has ended; also in a training that goes on from a checkpoint."""
        if trainer.current_epoch < self.warmup_epochs:
            return
        module.loss = GLSLoss(self.smooth_rate)
        for optimizer in trainer.optimizers:
            if trainer.current_epoch == self.warmup_epochs:
                optimizer.state.clear()  # a fresh optimiser: the warm-up's momentum belongs to its learning rate
            for group in optimizer.param_groups:
                group["lr"] = self.lr


class Classifier(lightning.LightningModule):
    """A small network whose loss may be exchanged."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
        self.loss: nn.Module = GLSLoss(0.0)

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], number: int) -> torch.Tensor:
        """Return the loss of a batch."""
        inputs, labels = batch
        return self.loss(self.network(inputs), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimiser of the warm-up."""
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def main() -> None:
    """Train with cross-entropy and with a smooth rate, and print the test accuracy of both."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    train, test = make_blobs()
    for rate in (0.0, 0.4):
        lightning.seed_everything(0, verbose=False)
        batches = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*train), batch_size=100, shuffle=True)
        trainer = lightning.Trainer(
            max_epochs=10, accelerator="cpu", gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
            callbacks=[SwitchAfterWarmup(warmup_epochs=3, smooth_rate=rate, lr=0.01)],
        )  # fmt: skip
        module = Classifier()
        trainer.fit(module, batches)
        with torch.no_grad():
            accuracy = (module.network(test[0]).argmax(1) == test[1]).float().mean()
        print(f"rate {rate:g}: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
