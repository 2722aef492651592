"""Write what was measured for people; computes nothing. Imports evaluation, quantization, early_exit and config."""
