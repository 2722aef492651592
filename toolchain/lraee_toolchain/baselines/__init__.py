"""Writes the bundles to measure against: FP32 and naive INT8. May import: data, parts, stages."""
