"""Words, tables and pages. May import: bundle, disk, errors, images, install, model, ort, prediction, reading."""
