"""Which settings matter for validation accuracy: PED-ANOVA and fANOVA over completed trials."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nls_tune.analysis.rows import by_level, completed_trials, log_share, rate_trials, search_trials, searched_settings
from nls_tune.metrics import Metric
from nls_tune.runs.schemas import objective_columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from optuna import Study
    from optuna.distributions import BaseDistribution

#: Fewer completed trials say nothing about several settings.
MIN_TRIALS = 10
#: Of more trials an even sample is used: at most so many of a run, and at most and at least so many per level.
MAX_TRIALS, MOST_TRIALS_PER_LEVEL, LEAST_TRIALS_PER_LEVEL = 1000, 300, 50
#: The same for the trees of fANOVA. Deeper trees than this follow the luck of single trials, and take far longer.
MAX_TREES, MOST_TREES_PER_LEVEL, LEAST_TREES_PER_LEVEL = 40, 24, 3
TREE_DEPTH = 5
#: PED-ANOVA asks what the best tenth has in common, and of few trials the best five.
_TOP_SHARE, _TOP_TRIALS = 0.1, 5


@dataclass(frozen=True)
class Importance:
    """How much a searched setting matters; over the settings the shares of each method sum to 1.

    PED-ANOVA says what matters for being among the best trials (Watanabe et al., IJCAI 2023), fANOVA is the share of
    the variance over all of the space (Hutter et al., ICML 2014).
    """

    setting: str
    ped_anova: float
    fanova: float


@dataclass(frozen=True)
class LevelImportances:
    """The importances at one noise level, from so many completed search trials; the highest PED-ANOVA share first.

    They are empty where ``reason`` says why.
    """

    noise_level: str
    num_trials: int
    importances: tuple[Importance, ...]
    reason: str | None
    metric: Metric = "accuracy"


def importances(
    trials: pd.DataFrame, levels: Sequence[str] = (), metric: Metric = "accuracy"
) -> tuple[LevelImportances, ...]:
    """Return the importances of each noise level that has search trials.

    Both methods are Optuna's, over the completed search trials of CE and GLS together: the rate as log(1 - r), the
    learning rate and other positive numbers in the log. PED-ANOVA compares the best tenth, at least five trials, with
    all. So that a large run takes no longer than a small one, an even sample of a level's trials is used, drawn with a
    fixed seed (``num_trials`` says how many), and fANOVA has 24 trees for one level, fewer for more, each of
    depth 5 at most (Optuna's defaults are 64 and 64).
    """
    bits = [name for name in trials.columns if str(name).endswith(("_correct_at_best", "_counts_at_best"))]
    found = by_level(rate_trials(search_trials(trials.drop(columns=bits))), levels)  # long cells take long to copy
    most = _share(MAX_TRIALS, len(found), LEAST_TRIALS_PER_LEVEL, MOST_TRIALS_PER_LEVEL)
    trees = _share(MAX_TREES, len(found), LEAST_TREES_PER_LEVEL, MOST_TREES_PER_LEVEL)
    return tuple(_importances(level, completed_trials(rows, metric), most, trees, metric) for level, rows in found)


def _share(total: int, levels: int, least: int, most: int) -> int:
    return min(most, max(least, total // max(1, levels)))


def _importances(level: str, trials: pd.DataFrame, most: int, trees: int, metric: Metric) -> LevelImportances:
    if len(trials) < MIN_TRIALS:
        plural = "" if len(trials) == 1 else "s"
        few = f"{len(trials)} completed trial{plural}; importances need at least {MIN_TRIALS}"
        return LevelImportances(level, len(trials), (), few, metric)
    rows = trials.iloc[_even_sample(len(trials), most)]
    names = [name for name in searched_settings(rows) if rows[name].astype(str).nunique() > 1]
    accuracies = rows[objective_columns(metric).best_val].to_numpy(float)
    reason: str | None = None
    if len(names) < 2:
        only = f"only {names[0].removeprefix('config_')} differs" if names else "no setting differs"
        reason = f"{only} between the trials, so there is nothing to compare"
    elif (accuracies == accuracies[0]).all():
        reason = f"all trials have the same validation {metric.replace('_', ' ')}"
    if reason is not None:
        return LevelImportances(level, len(rows), (), reason, metric)
    ped_anova, fanova = _evaluate(rows[names], accuracies, trees)
    found = [Importance(name.removeprefix("config_"), ped_anova[name], fanova[name]) for name in names]
    found.sort(key=lambda one: (-one.ped_anova, -one.fanova))
    return LevelImportances(level, len(rows), tuple(found), None, metric)


def _even_sample(num: int, most: int) -> np.ndarray:
    """Return the indices of at most ``most`` of ``num`` trials, ascending: one of each of as many equal stretches."""
    if num <= most:
        return np.arange(num)
    edges = np.linspace(0, num, most + 1).astype(int)
    picked: np.ndarray = np.random.default_rng(0).integers(edges[:-1], edges[1:])
    return picked


def _evaluate(settings: pd.DataFrame, accuracies: np.ndarray, trees: int) -> tuple[dict[str, float], dict[str, float]]:
    from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

    share = max(_TOP_SHARE, min(0.5, _TOP_TRIALS / len(accuracies)))
    with _quiet():
        study = _study(settings, accuracies)
        ped_anova = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=share))
        forest = FanovaImportanceEvaluator(n_trees=trees, max_depth=TREE_DEPTH, seed=0)
        fanova = get_param_importances(study, evaluator=forest)
    return ped_anova, {name: float(value) for name, value in fanova.items()}


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna says that a study was made and that an evaluator is experimental; neither is news to a reader."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


def _study(settings: pd.DataFrame, accuracies: np.ndarray) -> Study:
    """Return the trials as an Optuna study in memory; ranges are those of the trials."""
    import optuna

    columns: dict[str, tuple[list[Any], BaseDistribution]] = {
        str(name): _column(str(name), settings[name]) for name in settings.columns
    }
    distributions = {name: distribution for name, (_, distribution) in columns.items()}
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        optuna.trial.create_trial(
            params={name: values[i] for name, (values, _) in columns.items()},
            distributions=distributions,
            value=float(accuracy),
        )
        for i, accuracy in enumerate(accuracies)
    )
    return study


def _column(name: str, values: pd.Series) -> tuple[list[Any], BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if values.dtype.kind not in "iuf":
        texts = values.astype(str).tolist()
        return texts, CategoricalDistribution(sorted(set(texts)))
    if name == "smooth_rate":
        shares = log_share(values.to_numpy(float))
        return shares.tolist(), FloatDistribution(float(shares.min()), float(shares.max()))
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        return values.tolist(), FloatDistribution(low, high, log=low > 0)
    return values.tolist(), IntDistribution(int(values.min()), int(values.max()))
