"""Interleaved rounds: each round runs every row once on the same batch, and every sample is kept.

Rows measured one after the other would each run at another clock frequency, temperature and load; within one round
these are the same. The order changes from round to round: every cycle draws a random order and rotates it, so that
over a cycle every row has every place once, and over many cycles every neighbour.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Measure = Callable[[int], float]
"""Runs one row on the batch of that index, and gives the milliseconds it took."""

MIN_ROUNDS = 30
"""With fewer, a 90 % quantile is one of three samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many rounds to run, and in which order."""

    warmup_rounds: int
    """Run before, not measured."""
    rounds: int | None
    """Measured rounds; None goes on for `min_seconds`, to the end of a cycle, at least `min_rounds`."""
    min_seconds: float
    seed: int
    min_rounds: int = MIN_ROUNDS
    """When `rounds` is None."""
    first_batch: int = 0
    """Which batch the rounds begin with."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """The samples of all rounds."""

    samples_ms: NDArray[np.float64]
    """(rounds, rows) float64."""
    batch_of_round: NDArray[np.intp]
    """(rounds,) intp: which batch each round ran."""
    launches: NDArray[np.intp] | None = None
    """(rounds,) intp: which process each round ran in; None when all ran in one."""


def rotated_orders(count: int, random: np.random.Generator) -> Iterator[tuple[int, ...]]:
    """Orders of `count` rows without end, balanced over every `count` rounds.

    >>> orders = rotated_orders(2, np.random.default_rng(0))
    >>> sorted([next(orders), next(orders)])
    [(0, 1), (1, 0)]
    """
    while True:
        base = [int(index) for index in random.permutation(count)]
        for shift in random.permutation(count):
            yield (*base[shift:], *base[:shift])


def interleave(
    measures: Sequence[Measure],
    batches: int,
    plan: Plan,
    *,
    on_progress: Callable[[float], None] | None = None,
    clock_ns: Callable[[], int] = time.perf_counter_ns,
) -> Measured:
    """Run the rows.

    Args:
        measures: one for each row.
        batches: how many there are; rounds go through them in turn.
        plan: how long.
        on_progress: called after each round with the share that is done, 0 to 1.
        clock_ns: nanoseconds of a steady clock, for `Plan.min_seconds`.
    """
    orders = rotated_orders(len(measures), np.random.default_rng(plan.seed))
    for number in range(plan.warmup_rounds):
        for index in next(orders):
            measures[index](number % batches)

    orders = rotated_orders(len(measures), np.random.default_rng([plan.seed, 1]))
    rows: list[list[float]] = []
    with _no_garbage_collection():
        start = clock_ns()
        while True:
            batch = (plan.first_batch + len(rows)) % batches
            row = [0.0] * len(measures)
            for index in next(orders):
                row[index] = measures[index](batch)
            rows.append(row)
            done = _share_done(plan, len(rows), len(measures), (clock_ns() - start) / 1e9)
            if on_progress is not None:
                on_progress(done)
            if done >= 1:
                break
    return Measured(samples_ms=np.array(rows), batch_of_round=(plan.first_batch + np.arange(len(rows))) % batches)


def timed(call: Callable[[int], object], clock_ns: Callable[[], int] = time.perf_counter_ns) -> Measure:
    """Time a call, which is given the index of the batch."""

    def measure(batch: int) -> float:
        before = clock_ns()
        call(batch)
        return (clock_ns() - before) / 1e6

    return measure


def time_in_turn(calls: Sequence[Callable[[], object]], rounds: int, *, warmup_rounds: int = 1) -> NDArray[np.float64]:
    """Time a few calls against each other in this process.

    Returns:
        (rounds, calls) float64, milliseconds.
    """
    plan = Plan(warmup_rounds=warmup_rounds, rounds=rounds, min_seconds=0.0, seed=0)
    return interleave([timed(lambda _, call=call: call()) for call in calls], 1, plan).samples_ms  # type: ignore[misc]


def _share_done(plan: Plan, rounds: int, rows: int, seconds: float) -> float:
    """Say which share is done, 0 to 1; 1 only when the rounds suffice."""
    if plan.rounds is not None:
        return rounds / plan.rounds
    enough = rounds >= plan.min_rounds and seconds >= plan.min_seconds
    if enough and rounds % rows == 0:
        return 1.0
    return min(rounds / plan.min_rounds, seconds / max(plan.min_seconds, 1e-9), 0.99)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python's collector out of the samples, as timeit does."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
