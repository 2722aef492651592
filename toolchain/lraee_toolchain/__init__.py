"""Export a CLIP as a bundle: calibrate, quantize, train exits, write the bundle, report."""
