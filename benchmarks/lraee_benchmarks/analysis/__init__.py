"""Compute figures, their intervals and notes from samples; may import results, rows and running."""
