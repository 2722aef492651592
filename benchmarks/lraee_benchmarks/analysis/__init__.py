"""Turns samples into figures with intervals. May import: results, rows, running."""
