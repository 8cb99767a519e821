"""A search of imbalanced classes, where accuracy selects a network that predicts the common class alone."""

from pathlib import Path

import numpy as np
import pytest

from nls_tune import Data, read_epochs, read_trials, run_search
from nls_tune.analysis.analysis import analyze
from nls_tune.report.html.page import render_page
from nls_tune.runs import load_run

SPACE = """\
space:
  smooth_rate: {type: choice, values: [0.0], default: 0.0}
  warmup_epochs: {type: choice, values: [0], default: 0}
  lr: {type: choice, values: [0.01], default: 0.01}
  class_weights: {type: choice, values: [none, balanced], default: none}
fixed: {model: linear, batch_size: 50}
budget: {trials: 2, epochs: 3, grace_epochs: 1, reduction_factor: 2}
"""


def imbalanced(samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Nine of ten samples of one class, which the other one overlaps."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(samples) < 0.1).astype(np.int64)
    inputs = rng.normal(size=(samples, 3)).astype(np.float32)
    inputs[:, 0] += labels
    return inputs, labels


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("metric", "weights"), [("accuracy", "none"), ("balanced_accuracy", "balanced")])
def test_the_metric_decides_whether_the_common_class_alone_is_predicted(
    session, tmp_path: Path, metric: str, weights: str
):
    (tmp_path / "space.yaml").write_text(SPACE)
    inputs, labels = imbalanced(3000, 0)
    data = Data.from_arrays(inputs, labels, test=imbalanced(1000, 1))
    given = {"space": tmp_path / "space.yaml", "sampler": "grid", "scheduler": "none", "estimate_noise": False}
    found = run_search(data, metric=metric, confirm_seeds=0, out=tmp_path / "run", **given)
    trials = read_trials(found.run).set_index("config_class_weights")
    constant, learned = trials.loc["none"], trials.loc["balanced"]
    assert constant["best_val_balanced_accuracy"] == pytest.approx(0.5, abs=0.03)
    assert constant["best_val_accuracy"] > learned["best_val_accuracy"] + 0.1
    assert learned["best_val_balanced_accuracy"] > 0.65

    (level,) = found.levels
    assert (level.metric, level.arms["ce"].config["class_weights"]) == (metric, weights)
    selected = trials.loc[weights]
    assert level.arms["ce"].val_accuracy == selected[f"best_val_{metric}"]
    assert level.arms["ce"].test_accuracy_at_best == selected[f"test_{metric}_at_best"]
    curve = read_epochs(found.run).set_index("trial_id").loc[selected["trial_id"], f"val_{metric}"].tolist()
    at = int(selected["best_epoch"])
    assert selected[f"best_val_{metric}"] == pytest.approx(np.mean(curve[max(0, at - 2) : at]))

    run = load_run(found.run)
    assert run.content.metric == metric
    page = render_page(analyze([run]))
    assert ("Balanced accuracy against smooth rate" in page) == (metric == "balanced_accuracy")
    (classes,) = analyze([run]).runs[0].per_class
    assert (classes.split, len(classes.classes)) == ("test", 2)
    common, rare = classes.classes
    assert common.num_samples + rare.num_samples == 1000
    assert (common.recall + rare.recall) / 2 == pytest.approx(selected["test_balanced_accuracy_at_best"])
