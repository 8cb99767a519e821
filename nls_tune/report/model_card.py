"""The README of a saved network: what it is, how it was trained, how good it is, and what that is worth."""

from __future__ import annotations

from nls_tune.analysis.statistics import SampleMean, share_interval
from nls_tune.analysis.verdicts import Verdict
from nls_tune.report.table import Table, escaped_markdown, markdown_text, words
from nls_tune.report.text import NONE, of_metric, percent, rate, weights_text
from nls_tune.runs.saved_model import FACTS, WEIGHTS, SavedModel
from nls_tune.spaces.settings import TrainingSettings

_USE = f"""\
## Use

```python
from nls_tune import load_predictor

predictor = load_predictor("this folder")
probabilities = predictor.probabilities(inputs)
```

On the command line: `nls-tune predict FOLDER INPUT`. The weights are in `{WEIGHTS}`, everything else in `{FACTS}`.
"""


def model_card(saved: SavedModel, verdict: Verdict) -> str:
    """Return the model card of a saved network in Markdown; names that others gave are escaped."""
    name, level = escaped_markdown(saved.dataset), escaped_markdown(saved.noise_level)
    parts = [
        f"# {saved.model} for {name}, trained on noisy labels ({level})\n",
        _intended(saved),
        "## How good it is\n",
        *(f"{line}\n" for line in (_accuracy(saved), *_over_seeds(verdict), _against_ce(saved))),
        f"What the search says of this noise level: {escaped_markdown(saved.verdict)}\n",
        "## How it was trained\n",
        markdown_text(_facts(saved)),
        _USE,
    ]
    return "\n".join(parts)


def _intended(saved: SavedModel) -> str:
    inputs = f"images of {' x '.join(map(str, saved.input_shape))} (channels, height, width), uint8"
    if len(saved.input_shape) == 1:
        inputs = f"{saved.input_shape[0]} features"
    classes = f"{saved.num_classes} classes"
    if saved.class_names is not None:
        shown = [escaped_markdown(name) for name in saved.class_names[:20]]
        classes += f" ({', '.join(shown)}{', ...' if saved.num_classes > 20 else ''})"
    return f"It tells {classes} apart, from {inputs}. Anything else than the data that it was trained on is untested.\n"


def _accuracy(saved: SavedModel) -> str:
    if saved.test_accuracy is None:
        return "There is no test set with clean labels, so its accuracy is not known."
    low, high = share_interval(saved.test_accuracy, saved.num_test)
    return (
        f"These weights: {percent(saved.test_accuracy, 2)} on {saved.num_test:,} {saved.test_labels} test labels, "
        f"95 % interval [{100 * low:.2f}, {100 * high:.2f}] for the draw of the test samples alone"
        + (f"; balanced accuracy {percent(saved.test_balanced_accuracy, 2)}" if saved.test_balanced_accuracy else "")
        + (f", macro F1 {percent(saved.test_macro_f1, 2)}" if saved.test_macro_f1 else "")
        + ". It is one training."
    )


def _over_seeds(verdict: Verdict) -> list[str]:
    use = verdict.use
    if use is None or use.test is None or use.num_seeds < 2:
        return []
    return [
        f"The same configuration, trained on the training split with {use.num_seeds} fresh seeds: {_mean(use.test)}"
        + ("." if verdict.metric == "accuracy" else of_metric(" (accuracy).", [verdict.metric]))
    ]


def _mean(test: SampleMean) -> str:
    return f"{percent(test.mean, 2)} on average, 95 % interval [{100 * test.low:.2f}, {100 * test.high:.2f}]"


def _against_ce(saved: SavedModel) -> str:
    if saved.finding == "better":
        return "With fresh seeds, this configuration was better than the strongest cross-entropy of the search."
    is_ce = TrainingSettings.model_validate(saved.settings).arm == "ce"
    what = "It is trained with cross-entropy" if is_ce else "It may be no better than plain cross-entropy"
    return f"{what}: nothing was proven to beat that here."


def _facts(saved: SavedModel) -> Table:
    settings = TrainingSettings.model_validate(saved.settings)
    labels = "training and validation" if saved.trained_on == "all" else "training split only"
    loss = {"smooth_rate": rate(settings.smooth_rate)} if settings.loss == "gls" else {"loss": settings.loss_text()}
    facts = {
        "labels": f"{saved.num_samples:,} noisy ones ({labels}), {percent(saved.noise_rate)} wrong"
        if saved.noise_rate is not None
        else f"{saved.num_samples:,} ({labels}), an unknown share of them wrong",
        "network": saved.model,
        **loss,
        "warmup_epochs": str(settings.warmup_epochs),
        "lr": f"{settings.lr:g}",
        "stopped after epoch": f"{saved.epochs} of {settings.epochs}",
        "weights": weights_text(saved.readout),
        "precision": saved.precision,
        "seed": str(settings.seed),
        "device": saved.device,
        "run": saved.run_id or NONE,
        "versions": ", ".join(f"{name} {version}" for name, version in saved.versions.items() if version),
        "SHA-256 of the weights": saved.weights_sha256,
    }
    return Table(words("fact", "value"), tuple(facts.items()))
