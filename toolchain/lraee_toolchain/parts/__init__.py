"""Writes the ONNX parts of a tower and runs them. May import: nothing."""
