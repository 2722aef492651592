"""Find how many tokens to merge in each block, so that a share of the FLOPs is saved and the embedding turns least.

Candidates are a few shapes over the blocks (even, rising or falling, from the first block on or from a later one), each
scaled until it saves what is asked for. Where time is to be saved, shapes that merge in every second to fourth block
stand beside them: finding and merging pairs takes a block about the same time, however many there are. The candidate
that turns the embedding of calibration images least is then improved: pairs move from a block to its neighbours as long
as that helps. Every candidate is measured whole, since what a block merges changes what all blocks after it see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from lraee.errors import ExportError
from lraee_exporters.graphs.block import BlockForm, flops_of_block
from lraee_exporters.graphs.pooling.merging import most_merged
from lraee_exporters.tower import Tower
from lraee_toolchain.parts.scheduled import Schedule

MOVES = (2, 1)
"""Pairs that move to a neighbouring block at once, in the order in which they are tried."""

GAPS = (2, 3, 4)
"""Blocks from one that merges to the next, in the shapes for time."""

ROUNDS = 2
"""How often all moves of one size are tried."""


def block_flops(tower: Tower, number: int, tokens: int, merged: int = 0) -> int:
    """Count the FLOPs of a block that `tokens` come into, for one image; the last computes the class token alone."""
    form = BlockForm(
        token_count=tokens,
        merged=merged,
        class_token=tower.has_class_token,
        class_only=number == tower.depth and tower.has_class_token,
    )
    return flops_of_block(form, width=tower.width, mlp_width=tower.mlp_width, heads=tower.heads)


def blocks_flops(tower: Tower, schedule: Schedule) -> list[int]:
    """Count the FLOPs of each block under a schedule, for one image."""
    tokens, flops = tower.tokens, []
    for number, merged in enumerate(schedule, start=1):
        flops.append(block_flops(tower, number, tokens, merged))
        tokens -= merged
    return flops


def other_flops(tower: Tower) -> int:
    """Count the FLOPs of stem and projection, which merging leaves as they are."""
    stem = 2 * tower.patches * tower.width * 3 * tower.patch_size**2
    return stem if tower.projection is None else stem + 2 * tower.width * tower.embed_dim


def saving(tower: Tower, schedule: Schedule) -> float:
    """Give the share of the blocks' FLOPs that a schedule saves, 0 to 1."""
    return 1 - sum(blocks_flops(tower, schedule)) / sum(blocks_flops(tower, (0,) * tower.depth))


def full_saving(tower: Tower, schedule: Schedule) -> float:
    """Give the share of full depth's FLOPs that a schedule saves, 0 to 1; of the tail the projection is counted."""
    plain = sum(blocks_flops(tower, (0,) * tower.depth))
    return (plain - sum(blocks_flops(tower, schedule))) / (plain + other_flops(tower))


def is_possible(tower: Tower, schedule: Schedule) -> bool:
    """Tell whether each block has as many pairs as it is to merge, and the last, where only one token counts, none."""
    tokens, class_token = tower.tokens, tower.has_class_token
    if schedule[-1] and class_token:
        return False
    for merged in schedule:
        if not 0 <= merged <= most_merged(tokens, class_token=class_token):
            return False
        tokens -= merged
    return True


def shapes(depth: int) -> Iterator[tuple[float, ...]]:
    """Give how merging may be spread over the blocks: even, rising and falling, from several blocks on."""
    for start in sorted({0, depth // 6, depth // 3, depth // 2}):
        places = range(1, depth - start)
        for weigh in (lambda _, __: 1.0, lambda place, _: float(place), lambda place, count: float(count - place + 1)):
            yield (0.0,) * start + tuple(weigh(place, len(places)) for place in places) + (0.0,)


def sparse_shapes(depth: int) -> Iterator[tuple[float, ...]]:
    """Give how merging may be spread evenly over every second to fourth block, from one of the first blocks on.

    >>> [shape for shape in sparse_shapes(6) if shape[0]]
    [(1.0, 0.0, 1.0, 0.0, 1.0, 0.0), (1.0, 0.0, 0.0, 1.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)]
    """
    for gap in GAPS:
        for start in sorted({depth // 12, depth // 6, depth // 4}):
            places = range(start, depth - 1, gap)
            yield tuple(float(block in places) for block in range(depth))


def scaled(
    tower: Tower, shape: Sequence[float], wanted: float, saved: Callable[[Schedule], float] | None = None
) -> Schedule | None:
    """Scale a shape to the least schedule that saves as much as wanted; None where it cannot.

    Args:
        tower: gives the shapes.
        shape: how merging is spread over the blocks.
        wanted: share, above 0 and below 1.
        saved: gives the share that a schedule saves; None counts the blocks' FLOPs.
    """
    found: Schedule | None = None
    low, high = 0.0, float(tower.tokens)
    for _ in range(24):
        middle = (low + high) / 2
        schedule = _rounded(tower, [middle * share for share in shape])
        if (saving(tower, schedule) if saved is None else saved(schedule)) >= wanted:
            found, high = schedule, middle
        else:
            low = middle
    return found


def _rounded(tower: Tower, amounts: Sequence[float]) -> Schedule:
    """Round the sums of the amounts, so that fractions add up over the blocks; each block within what it can merge."""
    schedule: list[int] = []
    tokens, total = tower.tokens, 0.0
    for amount in amounts:
        total += amount
        merged = min(round(total) - sum(schedule), most_merged(tokens, class_token=tower.has_class_token))
        schedule.append(max(0, merged) if amount else 0)
        tokens -= schedule[-1]
    return tuple(schedule)


def find_schedule(
    tower: Tower,
    wanted: float,
    turned: Callable[[Schedule], float],
    saved: Callable[[Schedule], float] | None = None,
) -> Schedule:
    """Find the schedule that saves at least `wanted` of the blocks' FLOPs and turns the embedding least.

    Args:
        tower: gives the shapes.
        wanted: share of the blocks' FLOPs, above 0 and below 1.
        turned: measures a schedule: the mean of ``1 - cosine`` to the embedding without merging.
        saved: gives the share that a schedule saves of something else than FLOPs, such as time.

    Raises:
        ExportError: no schedule saves that much.
    """
    measured: dict[Schedule, float] = {}

    def value(schedule: Schedule) -> float:
        if schedule not in measured:
            measured[schedule] = turned(schedule)
        return measured[schedule]

    share = saved or partial(saving, tower)
    scale = partial(scaled, tower, wanted=wanted, saved=share)
    spread = [*shapes(tower.depth), *([] if saved is None else sparse_shapes(tower.depth))]
    candidates = {found for shape in spread if (found := scale(shape)) is not None}
    if not candidates:
        most = share(_rounded(tower, [float(tower.tokens)] * (tower.depth - 1) + [0.0]))
        what = "FLOPs" if saved is None else "time"
        raise ExportError(f"merging tokens saves at most {most:.2f} of this tower's {what}, wanted {wanted:.2f}")
    best = min(sorted(candidates), key=value)
    for pairs in MOVES * ROUNDS:
        for moved in list(_moves(best, pairs)):
            if is_possible(tower, moved) and share(moved) >= wanted and value(moved) < value(best):
                best = moved
    return best


def _moves(schedule: Schedule, pairs: int) -> Iterator[Schedule]:
    """Give the schedules in which so many pairs merge in a neighbouring block instead."""
    for place, merged in enumerate(schedule):
        for other in (place - 1, place + 1):
            if merged >= pairs and 0 <= other < len(schedule):
                moved = np.array(schedule)
                moved[place] -= pairs
                moved[other] += pairs
                yield tuple(int(count) for count in moved)
