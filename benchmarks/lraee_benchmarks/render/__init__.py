"""Turn a report into text, Markdown, CSV and HTML; may import results and output_files."""
