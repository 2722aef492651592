"""report.plots."""
