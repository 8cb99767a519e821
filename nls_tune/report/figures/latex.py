"""A LaTeX table of a confirmation, for papers (booktabs)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from nls_tune.report.text import number, printable, seed_count

if TYPE_CHECKING:
    from nls_tune.analysis.analysis import RunAnalysis
    from nls_tune.analysis.confirmation import ConfirmedConfiguration, LevelConfirmation
    from nls_tune.analysis.statistics import SampleMean

_SPECIALS = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}",
}  # fmt: skip
_NONE = "--"


def latex_text(text: str) -> str:
    """Return text that LaTeX prints as it is."""
    return "".join(_SPECIALS.get(character, character) for character in printable(text))


def latex_table(run: RunAnalysis) -> str | None:
    r"""Return a table of the confirmed levels of a run, with its caption; None without a confirmation on a test set.

    It needs ``\usepackage{booktabs}`` and, for ``\textquotedbl``, the font encoding T1.
    """
    levels = [level for level in run.confirmations if any(c.test_at_best for c in level.configurations)]
    if not levels:
        return None
    seeds = seed_count(c for level in levels for c in level.configurations)
    caption = (
        f"Test accuracy (\\%) at the best epoch, mean $\\pm$ standard deviation over {seeds}. "
        "Recommended: smooth rate (or CE), warm-up epochs and learning rate with the highest mean validation accuracy "
        "on noisy labels. $\\Delta$: paired difference in points to the strongest cross-entropy (CE), $\\pm$ half of "
        "its 95\\,\\% $t$ interval. $r^*$: noise-cancelling rate."
    )
    lines = [
        f"% Made by nls-tune from the run {latex_text(run.run.name)}; needs \\usepackage{{booktabs}}.",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{caption}}}",
        # So that it fits into the column of an article, below the caption and not on it.
        r"  \smallskip\footnotesize\setlength{\tabcolsep}{2.5pt}",
        r"  \begin{tabular}{@{}lrrlrrr@{}}",
        r"    \toprule",
        r"    Noise level & Rate & $r^*$ & \multicolumn{2}{c}{Recommended} & Strongest CE & $\Delta$ \\",
        r"    \cmidrule(lr){4-5}",
        r"    & (\%) & & configuration & test & test & (points) \\",
        r"    \midrule",
        *(f"    {_row(run, level)}" for level in levels),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(run: RunAnalysis, level: LevelConfirmation) -> str:
    summary = next((s for s in run.summaries if s.noise_level == level.noise_level), None)
    noise = None if summary is None else summary.noise_rate
    cancelling = None if summary is None else summary.noise_cancelling_rate
    best = level.configurations[level.recommended]
    strongest = None if level.strongest_ce is None else level.configurations[level.strongest_ce]
    comparison = level.comparisons[level.recommended]
    cells = [
        latex_text(level.noise_level),
        _NONE if noise is None else f"{100 * noise:.1f}",
        _NONE if cancelling is None else _number(cancelling, 3),
        _configuration(best),
        _mean(best.test_at_best),
        _mean(None if strongest is None else strongest.test_at_best),
        _NONE if comparison is None else _difference(comparison.difference),
    ]
    return " & ".join(cells) + r" \\"


def _configuration(found: ConfirmedConfiguration) -> str:
    config = found.config
    name = "CE" if found.arm == "ce" else _number(config["smooth_rate"], 4)
    # In mathematics, where 1e-05 has a minus and no hyphen.
    digits, _, exponent = number(config["lr"]).partition("e")
    lr = f"${digits} \\cdot 10^{{{int(exponent)}}}$" if exponent else f"${digits}$"
    return f"{name}, {config['warmup_epochs']}, {lr}"


def _number(value: float, digits: int) -> str:
    return f"${value + 0.0:.{digits}g}$"


def _mean(found: SampleMean | None) -> str:
    if found is None:
        return _NONE
    spread = "" if math.isnan(found.standard_deviation) else f" \\pm {100 * found.standard_deviation:.2f}"
    return f"${100 * found.mean:.2f}{spread}$"


def _difference(found: SampleMean) -> str:
    half = "" if math.isinf(found.low) else f" \\pm {100 * (found.high - found.low) / 2:.2f}"
    return f"${round(100 * found.mean, 2) + 0.0:+.2f}{half}$"
