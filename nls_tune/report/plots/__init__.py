"""The plots of the report page: one module a plot, from dataclasses of the analysis to plotly figures as plain dicts."""
