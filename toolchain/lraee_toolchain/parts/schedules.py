"""Builds the graphs of merging schedules beside the parts that merge nothing; both read the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lraee.bundle.manifest import PartEntry
from lraee.bundle.strict_json import read_json, write_json
from lraee_exporters.graphs.block import BlockForm, BlockWeights, build_block, operators_of_block
from lraee_exporters.graphs.tail import TailWeights, build_tail, operators_of_tail
from lraee_exporters.tower import Tower
from lraee_toolchain.parts.build import load_parts, save_part, save_parts
from lraee_toolchain.parts.scheduled import ScheduledParts

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


def add_schedules(
    tower: Tower,
    blocks: Sequence[BlockWeights],
    tail: TailWeights,
    folder: Path,
    schedules: Sequence[tuple[int, ...]],
) -> None:
    """Write the graphs of merging schedules into the folder of a tower's parts, and name them in its lists.

    Args:
        tower: gives the shapes.
        blocks: the weights of every block, as they were saved.
        tail: the tail's weights, likewise.
        folder: written by `save_tower_parts`.
        schedules: for each, the pairs of tokens that become one in each block.
    """
    entries = {part.name: part for part in load_parts(folder)}
    found = []
    for merged in schedules:
        scheduled, more = save_schedule(tower, blocks, tail, merged, folder)
        found.append(scheduled)
        entries |= {part.name: part for part in more}
    save_parts(tuple(entries.values()), folder)
    write_json(tuple(found), folder / SCHEDULES)


def load_schedules(folder: Path) -> tuple[ScheduledParts, ...]:
    """Read what `add_schedules` wrote; none where it never ran."""
    path = folder / SCHEDULES
    return read_json(tuple[ScheduledParts, ...], path) if path.is_file() else ()


def save_schedule(
    tower: Tower, blocks: Sequence[BlockWeights], tail: TailWeights, merged: tuple[int, ...], folder: Path
) -> tuple[ScheduledParts, list[PartEntry]]:
    """Write the graphs that a schedule needs and `save_tower_parts` did not write into this folder.

    The last block computes the class token alone where there is one, so it merges nothing.

    Args:
        tower: gives the shapes.
        blocks: the weights of every block, as they were saved.
        tail: the tail's weights, likewise.
        merged: pairs of tokens that become one in each block.
        folder: of the tower's parts.
    """
    names, entries, tokens, sized = [], [], tower.tokens, False
    for number, (block, pairs) in enumerate(zip(blocks, merged, strict=True), start=1):
        form = BlockForm(
            token_count=tokens,
            merged=pairs,
            sized=sized,
            class_token=tower.has_class_token,
            class_only=number == len(blocks) and tower.has_class_token,
        )
        if sized or pairs:
            graph, file = build_block(block, form, number=number)
            entries.append(save_part(graph, file, operators_of_block(block, form), folder))
            names.append(graph.name)
        else:
            names.append(f"block_{number:02d}")
        tokens, sized = tokens - pairs, sized or pairs > 0
    last = "tail"
    if sized and tail.pool is not None:
        graph, file = build_tail(tail, width=tower.width, embed_dim=tower.embed_dim, token_count=tokens, sized=True)
        entries.append(save_part(graph, file, operators_of_tail(tail, sized=True), folder))
        last = graph.name
    return ScheduledParts(merged=merged, blocks=tuple(names), tail=last), entries
