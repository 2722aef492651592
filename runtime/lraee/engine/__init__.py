"""Runs the parts of a bundle block by block. May import: arrays, bundle, checks, errors, labels, ort, policies."""
