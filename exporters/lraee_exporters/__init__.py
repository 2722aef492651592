"""From a CLIP checkpoint to ONNX parts: load, split into blocks, build, quantize."""
