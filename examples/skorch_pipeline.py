"""The loss in a scikit-learn pipeline, by skorch: the smooth rate is a parameter that a grid search can try.

pip install skorch
python examples/skorch_pipeline.py
"""

import torch
from noisy_blobs import make_blobs
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from skorch.callbacks import GradientNormClipping
from torch import nn

from nls_tune import GLSLoss


class Logits(NeuralNetClassifier):
    """A classifier whose network returns logits, as the loss wants them."""

    def predict_proba(self, X) -> object:  # noqa: ANN001, N803 - scikit-learn's own name
        """Return the class probabilities."""
        return torch.softmax(torch.from_numpy(super().predict_proba(X)), 1).numpy()


def main() -> None:
    """Choose the rate by cross-validation on the noisy labels, and print the test accuracy."""
    (inputs, labels), (test_inputs, test_labels) = (tuple(array.numpy() for array in split) for split in make_blobs())
    torch.manual_seed(0)
    network = Logits(
        nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4)),
        criterion=GLSLoss, criterion__smooth_rate=0.0, optimizer=torch.optim.SGD, optimizer__momentum=0.9,
        lr=0.01, batch_size=100, max_epochs=8, train_split=None, verbose=0, predict_nonlinearity=None,
        callbacks=[GradientNormClipping(1.0)],
    )  # fmt: skip
    rates = {"logits__criterion__smooth_rate": [0.0, 0.4, 0.8]}
    search = GridSearchCV(make_pipeline(StandardScaler(), network), rates, cv=2)
    search.fit(inputs, labels)
    (rate,) = search.best_params_.values()
    print(f"rate {rate:g}: test accuracy {search.score(test_inputs, test_labels):.3f}")


if __name__ == "__main__":
    main()
