"""Runs rows in turn, in this process or in others. May import: images, output_files, results, rows."""
