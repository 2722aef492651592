"""Pools all tokens by learned queries: the end of SigLIP's towers, and exit heads. May import: graphs, int8, tower."""
