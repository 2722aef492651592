"""Tunes the image trunk with its exits before it is quantized. May import: config, early_exit, stages."""
