"""Implements the published methods to compare with. May import: config, early_exit, parts."""
