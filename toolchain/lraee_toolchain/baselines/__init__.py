"""Make FP32 and library-default INT8 models to measure against. Imports stages, parts, data and config."""
