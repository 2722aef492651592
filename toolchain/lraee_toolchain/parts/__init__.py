"""Write the ONNX parts of a tower and run them. Imports none of the other sub-packages."""
