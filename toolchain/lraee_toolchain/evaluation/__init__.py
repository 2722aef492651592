"""Measures all numbers of the report.

May import: bootstrap, competitors, config, data, early_exit, parts, quantization, stages.
"""
