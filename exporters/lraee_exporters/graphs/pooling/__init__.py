"""Pools tokens: all into one by learned queries, or similar ones into fewer. May import: graphs, int8, tower."""
