"""Points whose loss is bounded by a proof, not by an estimate. May import: early_exit."""
