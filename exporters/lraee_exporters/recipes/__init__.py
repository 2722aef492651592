"""Trains the shipped weights again, from public data. May import: reference_labels."""
