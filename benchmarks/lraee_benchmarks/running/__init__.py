"""Run rows in processes and rounds; may import rows, images, results and output_files."""
