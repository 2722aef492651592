"""Writes a report as text, Markdown, CSV and HTML. May import: output_files, results."""
