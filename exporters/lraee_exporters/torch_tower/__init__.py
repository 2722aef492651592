"""Image towers in torch: to tune them, and to try what merged tokens change before any graph is built.

May import: graphs.
"""
