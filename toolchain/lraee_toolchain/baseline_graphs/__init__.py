"""Writes the graphs to measure against: FP32, bare GEMMs, and INT8 at ONNX Runtime's defaults.

May import: data, parts, stages.
"""
