"""Describes the machine and what it does meanwhile. May import: results, running."""
