"""Reads, checks and describes a bundle folder and its manifest. May import: errors."""
