"""Describes what a report holds. May import: nothing."""
