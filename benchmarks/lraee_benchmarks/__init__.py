"""Measure a bundle on the device it is meant for, with the runtime's dependencies alone.

cli            `lraee-bench`: options in, tables and files out
benchmark      the one function behind it: what is run, in which order
planning       which rows there will be, checked before anything is timed
config         what to measure, and the command that measures it again
images         the images, preprocessed first, and that timed separately
rows           what is measured: one runnable object for each row
running        in which process and in which order rows run
device         what the machine is, and what else it does meanwhile
analysis       samples in, figures and their intervals out
results        the typed report, which is also the JSON file
render         the report as text, Markdown, CSV and HTML
output_files   temporary files, and tables that are put into pages
"""
