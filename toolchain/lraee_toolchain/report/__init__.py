"""Writes and draws the report, and computes nothing.

May import: config, early_exit, evaluation, quantization.
"""
