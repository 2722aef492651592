"""Decide which images serve which purpose, and read labels. Imports config and array_file."""
