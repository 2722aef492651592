"""Gives and reads all tokens of a block, for heads that learn from them. May import: array_file, early_exit, parts."""
