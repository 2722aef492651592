"""Runs the parts of a bundle block by block. May import: bundle, checks, errors, labels, ort, policies."""
