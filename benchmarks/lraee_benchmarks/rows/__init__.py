"""Opens what is measured, one runnable for each row. May import: images, results."""
