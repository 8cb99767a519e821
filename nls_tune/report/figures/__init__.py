"""Static figures for papers: one file a plot as PNG, SVG or PDF, and a LaTeX table."""

from nls_tune.report.figures.files import FORMATS, check_formats, draw_figures, save_figures, write_figures

__all__ = ["FORMATS", "check_formats", "draw_figures", "save_figures", "write_figures"]
