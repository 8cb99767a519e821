"""Colours and marker shapes of the plots.

Figures hold colour names (``@negative``); the page resolves them for its light or dark theme. No curve is told apart by
its colour alone: arms have marker shapes and dashes of their own.
"""

from __future__ import annotations

import itertools
from typing import Any

from nls_tune.losses.registry import LOSSES
from nls_tune.spaces.settings import RATE_ARMS, Arm

#: Okabe and Ito, "Color Universal Design" (2008), by the roles that they have here, for the light and the dark theme;
#: green, purple and yellow are darker or lighter than theirs where they would not stand out from the page.
_COLOURS = {
    "ink": ("#1b1f24", "#e8eaed"),
    "muted": ("#57606a", "#a9b1bc"),
    "grid": ("#e4e7eb", "#30363e"),
    "page": ("#ffffff", "#14171c"),
    "faint": ("#b4bbc4", "#59626d"),
    "ce": ("#000000", "#ffffff"),
    "positive": ("#0072B2", "#56B4E9"),
    "negative": ("#D55E00", "#E69F00"),
    "curve": ("#57606a", "#a9b1bc"),
    "curve-band": ("rgba(87,96,106,0.16)", "rgba(169,177,188,0.20)"),
    "theory": ("#008262", "#2CC79B"),
    "bad": ("#B5367A", "#E79AC4"),
    "run-0": ("#0072B2", "#56B4E9"),
    "run-1": ("#D55E00", "#E69F00"),
    "run-2": ("#008262", "#2CC79B"),
    "run-3": ("#B5367A", "#E79AC4"),
    "run-4": ("#000000", "#ffffff"),
    "run-5": ("#946800", "#F0E442"),
}
PALETTES = {
    theme: {name: colours[i] for name, colours in _COLOURS.items()} for i, theme in enumerate(("light", "dark"))
}
NUM_RUN_COLOURS = 6

#: Other losses take these colours and shapes in turn.
_OTHERS = [name for name in LOSSES if name not in ("ce", "gls")]
_OTHER_COLOURS = ("@run-2", "@run-3", "@run-5", "@curve")
_OTHER_SYMBOLS = ("triangle-up", "cross", "star", "triangle-down", "x", "hexagon", "pentagon", "hourglass")


class ArmLooks(dict[Arm, str]):
    """The look of each arm; of one that it does not hold, that of a loss of one's own."""

    def __missing__(self, arm: Arm) -> str:
        return next(reversed(self.values()))


def _looks(rates: tuple[str, str, str], others: tuple[str, ...]) -> ArmLooks:
    found = zip(_OTHERS, itertools.cycle(others), strict=False)
    return ArmLooks([*zip(RATE_ARMS, rates, strict=True), *found])


ARM_COLOURS = _looks(("@ce", "@positive", "@negative"), _OTHER_COLOURS)
ARM_SYMBOLS = _looks(("diamond", "square", "circle"), _OTHER_SYMBOLS)
ARM_DASHES = _looks(("dash", "dot", "solid"), ("longdash", "dashdot"))
RUN_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")


def templates() -> dict[str, Any]:
    """Return the plotly layout template of each theme."""
    return {theme: _template(colours) for theme, colours in PALETTES.items()}


def _template(colours: dict[str, str]) -> Any:
    axis = {
        "gridcolor": colours["grid"],
        "linecolor": colours["muted"],
        "zerolinecolor": colours["grid"],
        "tickcolor": colours["muted"],
        "ticks": "outside",
        "ticklen": 4,
        "title": {"standoff": 8},
        "automargin": True,
        "zeroline": False,
    }
    family = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
    font = {"color": colours["ink"], "size": 12, "family": family}
    hover = {"align": "left", "bgcolor": colours["page"], "bordercolor": colours["muted"], "font": font}
    return {
        "layout": {
            "font": font,
            "paper_bgcolor": colours["page"],
            "plot_bgcolor": colours["page"],
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": hover,
            "legend": {"bgcolor": "rgba(0,0,0,0)"},
        }
    }
