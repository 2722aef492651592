"""Everything that cog may show in a document: ``cog -I docs/tools -p 'from shown import *'``."""

from bench_records import (
    SIZE_B32,
    TINY,
    bench_table,
    early_exit_at_b32,
    emulated_table,
    honest_reading,
    speed_ratio_table,
    towers_table,
)
from both_axes import both_axes
from bundle_format import graphs_table, manifest_tables
from commands import option_tables
from evidence_records import cuts_sentence, frontier_table, methods_table, outliers_table, promise_table, routing_table
from export_sizes import disk_table, own_photos_disk_table, passes_table
from layout import make_targets, packages_table, rooms_table
from photo_records import both_models_table, photo_bundle_table, photo_conclusions, unseen_classes, ways_on_photos
from records import show
from scale_out import cost_conclusion, cost_table, kills_sentence, speed_sentence
from service_record import service_table
from versions_that_ran import versions_table

__all__ = [
    "SIZE_B32",
    "TINY",
    "bench_table",
    "both_axes",
    "both_models_table",
    "cost_conclusion",
    "cost_table",
    "cuts_sentence",
    "disk_table",
    "early_exit_at_b32",
    "emulated_table",
    "frontier_table",
    "graphs_table",
    "honest_reading",
    "kills_sentence",
    "make_targets",
    "manifest_tables",
    "methods_table",
    "option_tables",
    "outliers_table",
    "own_photos_disk_table",
    "packages_table",
    "passes_table",
    "photo_bundle_table",
    "photo_conclusions",
    "promise_table",
    "rooms_table",
    "routing_table",
    "service_table",
    "show",
    "speed_ratio_table",
    "speed_sentence",
    "towers_table",
    "unseen_classes",
    "versions_table",
    "ways_on_photos",
]
