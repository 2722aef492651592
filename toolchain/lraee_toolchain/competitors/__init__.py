"""Implements the published methods that LRA-EE is compared with. May import early_exit and parts."""
