"""What is made from the inputs of an export, each result computed when it is first asked for and kept on disk.

May import: array_file, cache, config, data, early_exit, parts, quantization.
"""
