"""Measure a bundle on the device it is meant for, with the runtime's dependencies alone.

cli            `lraee-bench`: options in, tables and files out
benchmark      the one function behind it: what is run, in which order
variants       the chain's rows: adaptive, full depth, each exit
peers          the rows it is compared with; peer_onnx, peer_openvino and peer_torch run them, float_input surrounds
               those that take floats, peer_files finds their files
floor          the bare products and the reading of the weights, bounds of the chain
timing         interleaved rounds, raw samples kept
rows           the rows opened in this process
isolation      the rows opened each in a process of its own, which runs worker
sample         the images, preprocessed and that timed apart
cold_start     fresh processes: time to the first answer, and memory
accuracy       top-1 of each row, paired with full depth
intervals      what a number may be off by
summary        samples to rows
results        the typed report, which is also the JSON file
notes          what a reader of the report must not miss
render_*       the report as text, Markdown and CSV
"""
