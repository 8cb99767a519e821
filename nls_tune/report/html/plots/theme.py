"""Colours and marker shapes of the plots: Okabe and Ito's colours, which colour-blind people tell apart.

Figures hold colour names (``@negative``); the page resolves them for its light or dark theme. No curve is told apart by
its colour alone: arms have marker shapes and dashes of their own.
"""

from __future__ import annotations

from typing import Any

from nls_tune.spaces.space import Arm

#: Okabe and Ito, "Color Universal Design" (2008), by the roles that they have here; green, purple and yellow are darker
#: or lighter than theirs where they would not stand out from the page.
PALETTES: dict[str, dict[str, str]] = {
    "light": {
        "ink": "#1b1f24",
        "muted": "#57606a",
        "grid": "#e4e7eb",
        "page": "#ffffff",
        "faint": "#b4bbc4",
        "ce": "#000000",
        "positive": "#0072B2",
        "negative": "#D55E00",
        "ce-band": "rgba(0,0,0,0.10)",
        "curve": "#57606a",
        "curve-band": "rgba(87,96,106,0.16)",
        "theory": "#008262",
        "bad": "#B5367A",
        "run-0": "#0072B2",
        "run-1": "#D55E00",
        "run-2": "#008262",
        "run-3": "#B5367A",
        "run-4": "#000000",
        "run-5": "#946800",
    },
    "dark": {
        "ink": "#e8eaed",
        "muted": "#a9b1bc",
        "grid": "#30363e",
        "page": "#14171c",
        "faint": "#59626d",
        "ce": "#ffffff",
        "positive": "#56B4E9",
        "negative": "#E69F00",
        "ce-band": "rgba(255,255,255,0.12)",
        "curve": "#a9b1bc",
        "curve-band": "rgba(169,177,188,0.20)",
        "theory": "#2CC79B",
        "bad": "#E79AC4",
        "run-0": "#56B4E9",
        "run-1": "#E69F00",
        "run-2": "#2CC79B",
        "run-3": "#E79AC4",
        "run-4": "#ffffff",
        "run-5": "#F0E442",
    },
}
NUM_RUN_COLOURS = 6

ARM_COLOURS: dict[Arm, str] = {"ce": "@ce", "positive": "@positive", "negative": "@negative"}
ARM_SYMBOLS: dict[Arm, str] = {"ce": "diamond", "positive": "square", "negative": "circle"}
ARM_DASHES: dict[Arm, str] = {"ce": "dash", "positive": "dot", "negative": "solid"}
RUN_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star")


def templates() -> dict[str, dict[str, Any]]:
    """Return the plotly layout template of each theme."""
    return {name: _template(colours) for name, colours in PALETTES.items()}


def _template(colours: dict[str, str]) -> dict[str, Any]:
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
    return {
        "layout": {
            "font": {"color": colours["ink"], "size": 12, "family": family},
            "paper_bgcolor": colours["page"],
            "plot_bgcolor": colours["page"],
            "xaxis": axis,
            "yaxis": axis,
            "hoverlabel": {
                "align": "left",
                "bgcolor": colours["page"],
                "bordercolor": colours["muted"],
                "font": {"color": colours["ink"], "family": family, "size": 12},
            },
            "legend": {"bgcolor": "rgba(0,0,0,0)"},
        }
    }


def themed(figure: Any, theme: str) -> Any:
    """Return a figure with its colour names resolved, as the page does it.

    Args:
        figure: A figure, or a part of one.
        theme: ``light`` or ``dark``.
    """
    return _resolve(figure, PALETTES[theme], is_colour=False)


def _resolve(value: Any, colours: dict[str, str], is_colour: bool) -> Any:
    if isinstance(value, dict):
        return {key: _resolve(part, colours, "color" in key) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_resolve(part, colours, is_colour) for part in value]
    if is_colour and isinstance(value, str) and value.startswith("@"):
        return colours[value[1:]]
    return value
