"""Measure a bundle on the device it is meant for, with the runtime's dependencies alone."""
