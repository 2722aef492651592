"""Fits heads, gates, thresholds and operating points. May import: array_file, config, parts."""
