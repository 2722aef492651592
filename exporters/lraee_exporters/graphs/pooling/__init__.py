"""Builds the pooling of heads that read all tokens of a block. May import: graphs, tower."""
