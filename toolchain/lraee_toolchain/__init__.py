"""The export pipeline: calibrate, quantize, train exits, pack, report."""
