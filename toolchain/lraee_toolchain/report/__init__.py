"""Writes and draws the report, and computes nothing.

May import: bootstrap, config, early_exit, evaluation, quantization.
"""
