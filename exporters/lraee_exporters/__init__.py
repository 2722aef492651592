"""Turn a CLIP checkpoint into ONNX parts: load it, split it into blocks, quantize, build graphs."""
