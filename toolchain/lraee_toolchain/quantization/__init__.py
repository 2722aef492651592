"""Quantizes a tower to INT8 and measures the noise. May import: array_file, config, parts."""
