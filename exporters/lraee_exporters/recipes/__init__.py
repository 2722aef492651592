"""Recipes: how shipped weights were made, runnable again from public data."""
