"""Measure a bundle on the device it is meant for, with the runtime's dependencies alone.

cli            `lraee-bench`: options in, tables and files out
benchmark      the one function behind it: what is run, in which order
variants       the rows: adaptive, full depth, each exit, and one-graph baselines
timing         interleaved rounds, raw samples kept
sample         the images, preprocessed and that timed apart
cold_start     fresh processes: time to the first answer, and memory
accuracy       top-1 of each row, paired with full depth
bootstrap      intervals
summary        samples to rows
results        the typed report, which is also the JSON file
notes          what a reader of the report must not miss
render_*       the report as text, Markdown and CSV
"""
