"""Measures all numbers of the report.

May import: competitors, config, data, early_exit, parts, quantization, stages.
"""
