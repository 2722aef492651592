"""Describe the machine and watch what it does; may import results and running."""
