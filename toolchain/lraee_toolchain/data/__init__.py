"""Chooses which images serve which purpose, and the labels. May import: array_file, config."""
