"""Tunes the image trunk with temporary exits before it is quantized. May import: config, stages."""
