"""Loads a checkpoint and describes its towers in numpy. May import: one_line, tower, widen."""
