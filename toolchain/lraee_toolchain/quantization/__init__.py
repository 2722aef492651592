"""Quantize to INT8: ranges, naive, GPTQ and SmoothQuant search, dynamic, and the noise of it. Imports parts."""
