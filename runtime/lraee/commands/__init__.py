"""Words and tables of ``python -m lraee``. May import: bundle, errors, model, ort, prediction."""
