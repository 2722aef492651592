"""Fits exits: features, heads, gates, thresholds, operating points. May import parts, config and array_file."""
