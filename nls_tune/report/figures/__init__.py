"""The figures that papers print: one PNG, SVG or PDF file per figure, and a LaTeX table."""

from nls_tune.report.figures.files import (
    FORMATS,
    DrawnFigures,
    check_formats,
    draw_figures,
    save_figures,
    write_figures,
)

__all__ = ["FORMATS", "DrawnFigures", "check_formats", "draw_figures", "save_figures", "write_figures"]
