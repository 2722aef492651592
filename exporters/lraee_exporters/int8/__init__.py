"""Quantizes linear layers to INT8: rounding, GPTQ, SmoothQuant. May import: tower."""
