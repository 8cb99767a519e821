"""A LaTeX table of the verdicts, for papers (booktabs)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nls_tune.report.text import number, of_metric, other_settings, printable, seed_count
from nls_tune.report.words import FINDINGS, test_text
from nls_tune.spaces.settings import RATE_ARMS

if TYPE_CHECKING:
    from nls_tune.analysis.analysis import RunAnalysis
    from nls_tune.analysis.choices import Choice
    from nls_tune.analysis.statistics import SampleMean
    from nls_tune.analysis.verdicts import Verdict

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
    r"""Return a table of the verdicts of a run, with its caption; None without a confirmation on a test set.

    It needs ``\usepackage{booktabs}`` and, for ``\textquotedbl``, the font encoding T1.
    """
    verdicts = [found for found in run.verdicts if found.difference is not None]
    if not verdicts:
        return None
    methods = any(found.methods for found in verdicts)
    seeds = seed_count(c for level in run.confirmations for c in level.configurations)
    caption = (
        "What to use: smooth rate (or cross-entropy, CE), warm-up epochs, learning rate and what else was searched, "
        f"and its test accuracy (\\%), mean $\\pm$ standard error over {seeds}. $\\Delta$: test accuracy of the best "
        "rate, by mean validation accuracy, minus that of the strongest CE, paired by seed, in points, "
        "$\\pm$ half of its 95\\,\\% $t$ interval. $r^*$: noise-cancelling rate."
    )
    if methods:
        caption = (
            "For each method its best configuration by mean validation accuracy: rate or loss, warm-up "
            "epochs, learning rate and what else was searched, and its test accuracy (\\%), mean $\\pm$ standard error "
            f"over {seeds}. $\\Delta$: that minus the test accuracy of the strongest cross-entropy (CE), paired by "
            "seed, in points, $\\pm$ half of its 95\\,\\% $t$ interval. Verdicts are corrected over all levels and "
            "methods (Holm)."
        )
    caption = of_metric(caption, [run.run.content.metric])
    lines = [
        f"% Made by nls-tune from the run {latex_text(run.run.name)}; needs \\usepackage{{booktabs}}.",
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{caption}}}",
        # So that it fits into the column of an article, below the caption and not on it.
        r"  \smallskip\footnotesize\setlength{\tabcolsep}{2.5pt}",
        *(_methods(verdicts) if methods else _levels(run, verdicts)),
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _levels(run: RunAnalysis, verdicts: Sequence[Verdict]) -> list[str]:
    """One row per noise level."""
    return [
        r"  \begin{tabular}{@{}lrrlrrrl@{}}",
        r"    \toprule",
        r"    Noise level & Rate & $r^*$ & \multicolumn{2}{c}{Use} & \multicolumn{2}{c}{Best rate} & Verdict \\",
        r"    \cmidrule(lr){4-5}\cmidrule(lr){6-7}",
        r"    & (\%) & & configuration & test & rate & $\Delta$ (points) & \\",
        r"    \midrule",
        *(f"    {_row(run, found)}" for found in verdicts),
        r"    \bottomrule",
    ]


def _methods(verdicts: Sequence[Verdict]) -> list[str]:
    """One row per noise level and method, CE first."""
    lines = [
        r"  \begin{tabular}{@{}llllll@{}}",
        r"    \toprule",
        r"    Noise level & Method & configuration & test & $\Delta$ (points) & Verdict \\",
    ]
    for found in verdicts:
        rows: list[tuple[str, Choice, SampleMean | None, str]] = []
        if found.ce is not None:
            rows.append(("ce", found.ce, None, "strongest CE"))
        rows += [(one.method, one.choice, one.difference, FINDINGS[one.finding]) for one in found.methods]
        lines.append(r"    \midrule")
        for name, choice, difference, said in rows:
            cells = [
                latex_text(found.noise_level),
                latex_text(name),
                _configuration(choice),
                "$" + test_text(choice).replace("\n±", r" \pm") + "$",
                _NONE if difference is None else _difference(difference),
                said,
            ]
            lines.append("    " + " & ".join(cells) + r" \\")
    return [*lines, r"    \bottomrule"]


def _row(run: RunAnalysis, found: Verdict) -> str:
    cancelling = next(s.noise_cancelling_rate for s in run.summaries if s.noise_level == found.noise_level)
    cells = [
        latex_text(found.noise_level),
        _NONE if found.noise_rate is None else f"{100 * found.noise_rate:.1f}",
        _NONE if cancelling is None else _number(cancelling, 3),
        _NONE if found.use is None else _configuration(found.use),
        _NONE if found.use is None else "$" + test_text(found.use).replace("\n±", r" \pm") + "$",
        _NONE if found.rate is None else _number(found.rate.config["smooth_rate"], 4),
        _NONE if found.difference is None else _difference(found.difference),
        FINDINGS[found.finding],
    ]
    return " & ".join(cells) + r" \\"


def _configuration(use: Choice) -> str:
    config = use.config
    name = "CE" if use.arm == "ce" else _number(config["smooth_rate"], 4)
    if use.arm not in RATE_ARMS:
        name = latex_text(use.arm)
    # In mathematics, where 1e-05 has a minus and no hyphen.
    digits, _, exponent = number(config["lr"]).partition("e")
    lr = f"${digits} \\cdot 10^{{{int(exponent)}}}$" if exponent else f"${digits}$"
    others = [
        f"{latex_text(key)} {_number(value, 4) if isinstance(value, float) else latex_text(str(value))}"
        for key, value in other_settings(config).items()
    ]
    return ", ".join([name, str(config["warmup_epochs"]), lr, *others])


def _number(value: float, digits: int) -> str:
    return f"${value + 0.0:.{digits}g}$"


def _difference(found: SampleMean) -> str:
    half = "" if math.isinf(found.low) else f" \\pm {100 * (found.high - found.low) / 2:.2f}"
    return f"${round(100 * found.mean, 2) + 0.0:+.2f}{half}$"
