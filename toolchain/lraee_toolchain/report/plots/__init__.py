"""Draws the plots of the report. May import: quantization."""
