"""Writes the finished bundle and puts it where it was asked for.

May import: array_file, cache, config, early_exit, parts.
"""
