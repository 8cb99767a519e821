"""The plots of the report page: one module a plot, from dataclasses to plotly figures as plain dicts."""
