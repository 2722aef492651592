"""Writes the finished bundle and puts it where it was asked for.

May import: array_file, config, durable, early_exit, parts.
"""
