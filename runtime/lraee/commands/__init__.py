"""Words, tables and pages of the commands. May import: bundle, disk, errors, images, install, model, ort, prediction."""
