"""Gives and reads all tokens of a block, for heads that learn from them. May import: early_exit, parts."""
