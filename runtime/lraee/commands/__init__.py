"""Words and tables of ``python -m lraee``. May import: bundle, disk, errors, model, ort, prediction."""
