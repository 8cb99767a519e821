"""Which settings matter for validation accuracy: PED-ANOVA and fANOVA over completed trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Importance:
    """Shares of the searched settings, each method's sum to 1.

    Attributes:
        setting: Its name.
        ped_anova: What matters for being among the best trials (Watanabe et al., IJCAI 2023).
        fanova: Share of the variance over all of the space (Hutter et al., ICML 2014).
    """

    setting: str
    ped_anova: float
    fanova: float


@dataclass(frozen=True)
class LevelImportances:
    """The importances at one noise level.

    Attributes:
        noise_level: In its stored spelling.
        num_trials: Completed search trials that were used.
        importances: Highest PED-ANOVA share first; empty where ``reason`` says why.
        reason: Why there are none; None if there are.
    """

    noise_level: str
    num_trials: int
    importances: tuple[Importance, ...]
    reason: str | None


def importances(trials: pd.DataFrame, levels: Sequence[str] = ()) -> tuple[LevelImportances, ...]:
    """Return the importances of each noise level that has search trials."""
    raise NotImplementedError
