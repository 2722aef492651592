"""Draws the plots of the report. May import: config, evaluation, quantization, report."""
