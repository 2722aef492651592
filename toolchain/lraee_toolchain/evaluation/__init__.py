"""Measure a finished bundle and the paper's tables. Imports stages and all sub-packages but report and baselines."""
