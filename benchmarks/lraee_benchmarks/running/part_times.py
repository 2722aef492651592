"""Time every part of the tower: stem, blocks, exits and tail, in the order in which an image meets them.

The run visits every exit and leaves by none. A part's time begins where that of the part before it ends, so what the
orchestrator does between two parts counts towards the second.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence

import numpy as np

from lraee.images.read import Pixels
from lraee.model import Model
from lraee.policies import Full
from lraee.policies.given_shares import EveryExit
from lraee_benchmarks.results.model import PartTime
from lraee_benchmarks.running.rounds import Plan, interleave, timed

ROUNDS = 200
WARM_UP = 10


def measure_parts(
    model: Model,
    batches: Sequence[Pixels],
    *,
    rounds: int = ROUNDS,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> tuple[PartTime, ...]:
    """Median time of every part, and its share of a run to the end that visits no exit.

    Args:
        model: whose parts; in this process.
        batches: (batch, size, size, 3) uint8 each, taken in turn.
        rounds: measured runs of either kind; a run with exits and one without take turns.
        clock_ns: nanoseconds.
    """
    runs: list[list[tuple[str, int]]] = []

    def through_exits(batch: int) -> float:
        marks = [("", clock_ns())]
        runs.append(marks)
        model.run_pixels(
            batches[batch], policy=EveryExit(), on_part=lambda part, images: marks.append((part, clock_ns()))
        )
        return (marks[-1][1] - marks[0][1]) / 1e6

    full = timed(lambda batch: model.run_pixels(batches[batch], policy=Full()), clock_ns)
    plan = Plan(warmup_rounds=WARM_UP, rounds=rounds, min_seconds=0.0, seed=0)
    whole = float(np.median(interleave([full, through_exits], len(batches), plan).samples_ms[:, 0]))
    times: dict[str, list[int]] = {}
    for marks in runs[WARM_UP:]:
        for (_, begun), (part, ended) in itertools.pairwise(marks):
            times.setdefault(part, []).append(ended - begun)
    medians = {part: float(np.median(found)) / 1e6 for part, found in times.items()}
    return tuple(PartTime(part=part, p50_ms=ms, share_of_full=ms / whole) for part, ms in medians.items())
