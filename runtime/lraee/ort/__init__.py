"""ONNX Runtime sessions, threads, CPU features and system limits. May import: bundle, errors."""
