"""Words and tables of ``python -m lraee``. May import: bundle, disk, errors, install, model, ort, prediction."""
