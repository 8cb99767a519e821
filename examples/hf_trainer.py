"""The loss in the Trainer of Hugging Face: a ``GLSLoss`` is its ``compute_loss_func`` as it is.

pip install transformers accelerate
python examples/hf_trainer.py
"""

import tempfile

import torch
from noisy_blobs import make_blobs
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PrinterCallback, Trainer, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from nls_tune import GLSLoss


class Blobs(torch.utils.data.Dataset):
    """Samples as the Trainer wants them, by name."""

    def __init__(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        self.inputs, self.labels = inputs, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"inputs": self.inputs[index], "labels": self.labels[index]}


class Classifier(PreTrainedModel):
    """A small network in the place of a large one."""

    config_class = PretrainedConfig

    def __init__(self, config: PretrainedConfig) -> None:
        super().__init__(config)
        self.network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))

    def forward(self, inputs: torch.Tensor, labels: torch.Tensor | None = None) -> SequenceClassifierOutput:
        """Return the logits."""
        return SequenceClassifierOutput(logits=self.network(inputs))


def main() -> None:
    """Train with cross-entropy and with a smooth rate, and print the test accuracy of both."""
    train, test = make_blobs()
    for rate in (0.0, 0.4):
        torch.manual_seed(0)
        model = Classifier(PretrainedConfig())
        with tempfile.TemporaryDirectory() as folder:
            # The warm-up and the phase of the rate are two trainings, each with its own optimiser and learning rate.
            for loss, epochs, lr in ((GLSLoss(0.0), 3, 0.01), (GLSLoss(rate), 7, 0.002)):
                arguments = TrainingArguments(
                    folder, num_train_epochs=epochs, learning_rate=lr, per_device_train_batch_size=50,
                    gradient_accumulation_steps=2, max_grad_norm=1.0, report_to=[], save_strategy="no",
                    logging_strategy="no", disable_tqdm=True, use_cpu=True, seed=0,
                )  # fmt: skip
                trainer = Trainer(model, arguments, train_dataset=Blobs(*train), compute_loss_func=loss)
                trainer.remove_callback(PrinterCallback)
                trainer.train()
        with torch.no_grad():
            accuracy = (model(test[0]).logits.argmax(1) == test[1]).float().mean()
        print(f"rate {rate:g}: test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
