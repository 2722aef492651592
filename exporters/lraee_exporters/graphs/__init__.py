"""Builds the ONNX graph of each part of a tower. May import: int8, loading, tower."""
