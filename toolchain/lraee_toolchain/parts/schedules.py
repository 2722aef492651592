"""Builds the graphs of merging schedules; they read the same weights as the parts that merge nothing."""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lraee.bundle.manifest import PartEntry
from lraee.bundle.strict_json import read_json, write_json
from lraee_exporters.graphs.block import BlockForm, build_block, operators_of_block
from lraee_exporters.graphs.tail import build_tail, operators_of_tail
from lraee_exporters.tower import Tower
from lraee_toolchain.parts.build import save_part, save_parts
from lraee_toolchain.parts.saved_weights import TowerWeights
from lraee_toolchain.parts.scheduled import NamedSchedule, ScheduledParts

SCHEDULES = "schedules.json"


def tokens_after(tokens: int, merged: Sequence[int]) -> list[int]:
    """Count the tokens after each block.

    >>> tokens_after(50, (0, 4, 4))
    [50, 46, 42]
    """
    left = []
    for count in merged:
        tokens -= count
        left.append(tokens)
    return left


def build_schedules(
    tower: Tower, weights: TowerWeights, plain: Path, folder: Path, schedules: Sequence[NamedSchedule]
) -> None:
    """Write the graphs of merging schedules, and name them.

    Args:
        tower: gives the shapes.
        weights: that the parts which merge nothing were built from.
        plain: folder of those parts.
        folder: empty; the weight files that the graphs read are linked or copied into it.
        schedules: at least one.
    """
    entries: dict[str, PartEntry] = {}
    found = []
    for schedule in schedules:
        scheduled, more = _save_schedule(tower, weights, schedule, folder)
        found.append(scheduled)
        entries |= {part.name: part for part in more}
    for data in {part.data for part in entries.values() if part.data is not None}:
        assert filecmp.cmp(folder / data, plain / data, shallow=False)  # else their graphs would read others' weights
        (folder / data).unlink()
        link(plain / data, folder / data)
    save_parts(tuple(entries.values()), folder)
    write_json(tuple(found), folder / SCHEDULES)


def load_schedules(folder: Path) -> tuple[ScheduledParts, ...]:
    """Read what `build_schedules` wrote."""
    return read_json(tuple[ScheduledParts, ...], folder / SCHEDULES)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _save_schedule(
    tower: Tower, weights: TowerWeights, schedule: NamedSchedule, folder: Path
) -> tuple[ScheduledParts, list[PartEntry]]:
    """Write the graphs that a schedule needs beside those that merge nothing.

    The last block computes the class token alone where there is one, so it merges nothing.
    """
    names, entries, tokens, sized = [], [], tower.tokens, False
    for number, (block, pairs) in enumerate(zip(weights.blocks, schedule.merged, strict=True), start=1):
        form = BlockForm(
            token_count=tokens,
            merged=pairs,
            sized=sized,
            class_token=tower.has_class_token,
            class_only=number == tower.depth and tower.has_class_token,
        )
        if sized or pairs:
            graph, file = build_block(block, form, number=number)
            entries.append(save_part(graph, file, operators_of_block(block, form), folder))
            names.append(graph.name)
        else:
            names.append(f"block_{number:02d}")
        tokens, sized = tokens - pairs, sized or pairs > 0
    last, tail = "tail", weights.tail
    if sized and tail.pool is not None:
        graph, file = build_tail(tail, width=tower.width, embed_dim=tower.embed_dim, token_count=tokens, sized=True)
        entries.append(save_part(graph, file, operators_of_tail(tail, sized=True), folder))
        last = graph.name
    return ScheduledParts(name=schedule.name, merged=schedule.merged, blocks=tuple(names), tail=last), entries
