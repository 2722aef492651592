"""Token merging as it was published: the same number of pairs in every block, on the frozen tower, nothing learned.

Source: Bolya et al., *Token Merging: Your ViT But Faster*, arXiv 2210.09461. The blocks are the tower's own, quantized
with all tokens; see `lraee_exporters.graphs.pooling.merging`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee_exporters.tower import Tower
from lraee_toolchain.parts.runner import BATCH, Chain
from lraee_toolchain.parts.saved_weights import load_weights
from lraee_toolchain.parts.schedule_search import full_saving, scaled
from lraee_toolchain.parts.scheduled import NamedSchedule, Schedule
from lraee_toolchain.parts.schedules import build_schedules, load_schedules


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merged:
    """What the tower does under one schedule."""

    schedule: Schedule
    saved: float
    """Share of full-depth FLOPs, matching counted."""
    good: NDArray[np.float64]
    """(images,) 1 where the answer is right."""


def even_schedule(tower: Tower, saved: float) -> Schedule | None:
    """Find the least even schedule that saves at least this share of full-depth FLOPs; None where none does."""
    shape = (1.0,) * (tower.depth - 1) + (0.0 if tower.has_class_token else 1.0,)
    low, high = saved, min(1.0, 2 * saved + 0.05)  # shares of the blocks' FLOPs alone are a little larger
    for _ in range(20):
        middle = (low + high) / 2
        found = scaled(tower, shape, middle)
        if found is not None and full_saving(tower, found) < saved:
            low = middle
        else:
            high = middle
    return scaled(tower, shape, high)


def measure_merged(
    chain: Chain,
    parts: Path,
    tower: Tower,
    images: tuple[NDArray[np.uint8], NDArray[np.int64]],
    schedule: Schedule,
) -> Merged:
    """Run the tower with merged tokens.

    Args:
        chain: of the tower's parts.
        parts: its folder, with the weights of the parts.
        tower: gives the shapes.
        images: pixels (images, size, size, 3) uint8, and classes (images,) int64.
        schedule: pairs that become one in each block.
    """
    pixels, classes = images
    with tempfile.TemporaryDirectory(dir=parts.parent) as name:
        folder = Path(name)
        named = NamedSchedule(name="even", merged=schedule)
        build_schedules(tower, load_weights(parts), parts, folder, [named])
        (scheduled,) = load_schedules(folder)
        merged = chain.under(scheduled, folder)
        good = []
        for start in range(0, len(pixels), BATCH):
            for tokens in merged.sized_after_blocks(np.ascontiguousarray(pixels[start : start + BATCH])):
                last = tokens
            good.append(merged.tail(last)[1].argmax(axis=1) == classes[start : start + BATCH])
        for part in {*scheduled.blocks, scheduled.tail}:
            if (folder / f"{part}.onnx").is_file():
                chain.drop(part)
    return Merged(schedule=schedule, saved=full_saving(tower, schedule), good=np.concatenate(good).astype(np.float64))
