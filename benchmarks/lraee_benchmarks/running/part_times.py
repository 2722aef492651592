"""How long each part of the tower takes: stem, blocks, exits, tail, one after the other as an image meets them.

A run visits every exit and leaves at none. A part's time is that from the end of the part before it, so what the
orchestrator does between two parts counts to the second.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.images.read import Pixels
from lraee.model import Model
from lraee.policies import Full
from lraee.policies.base import Verdict
from lraee_benchmarks.results.model import PartTime

ROUNDS = 200
WARM_UP = 10


@dataclass(frozen=True, slots=True)
class VisitEveryExit:
    """A policy, and its own route: all exits are evaluated, nobody leaves."""

    def bind(self, manifest: Manifest) -> VisitEveryExit:
        """Any bundle will do."""
        return self

    def visits(self, block: int) -> bool:
        """All."""
        return True

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Nobody."""
        return np.zeros(len(verdict.gate), np.bool_)


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
    times: dict[str, list[int]] = {}
    full: list[int] = []
    for number in range(-WARM_UP, rounds):
        pixels = batches[number % len(batches)]
        before = clock_ns()
        model.run_pixels(pixels, policy=Full())
        elapsed = clock_ns() - before
        marks = [("", clock_ns())]
        model.run_pixels(
            pixels,
            policy=VisitEveryExit(),
            on_part=lambda part, count, marks=marks: marks.append((part, clock_ns())),  # type: ignore[misc]
        )
        if number < 0:
            continue
        full.append(elapsed)
        for (_, begun), (part, ended) in itertools.pairwise(marks):
            times.setdefault(part, []).append(ended - begun)
    whole = float(np.median(full))
    return tuple(
        PartTime(part=part, p50_ms=float(np.median(found)) / 1e6, share_of_full=float(np.median(found)) / whole)
        for part, found in times.items()
    )
