"""Draw plots as SVG. Imports evaluation.metrics, quantization and report.names."""
