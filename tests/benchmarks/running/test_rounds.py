"""Rounds: balanced order, every sample kept, only `run` timed."""

from __future__ import annotations

import gc
from collections import Counter
from itertools import islice, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lraee.images.read import Pixels
from lraee_benchmarks.rows.policy_rows import Outcome, Variant
from lraee_benchmarks.running.in_process import TimedVariant
from lraee_benchmarks.running.rounds import MIN_ROUNDS, Measured, Plan, interleave, rotated_orders


class Clock:
    """A clock that variants move by hand."""

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


def slow_variant(name: str, clock: Clock, elapsed_ms: float, log: list[str] | None = None) -> Variant[Any]:
    """A variant that takes exactly so long; reading its output would take an hour."""

    def run(pixels: Pixels) -> str:
        clock.now_ns += int(elapsed_ms * 1e6)
        if log is not None:
            log.append(name)
        return f"{name} {int(pixels[0, 0, 0, 0])}"

    def read(_: str) -> Outcome:
        clock.now_ns += int(3.6e12)
        raise AssertionError("nothing is read while rounds run")

    return Variant(name=name, kind="exit", run=run, read=read)


def rounds(variants: list[Variant[Any]], images: list[Pixels], plan: Plan, clock: Clock, **options: Any) -> Measured:
    """Rounds of variants by the clock."""
    return interleave(
        [TimedVariant(variant, images, clock).measure for variant in variants],
        len(images),
        plan,
        clock_ns=clock,
        **options,
    )


def plan(**changes: Any) -> Plan:
    """No warm-up and four rounds, unless told otherwise."""
    return Plan(**{"warmup_rounds": 0, "rounds": 4, "min_seconds": 0.0, "seed": 0, **changes})


@given(count=st.integers(1, 9), seed=st.integers(0, 1000), cycles=st.integers(1, 4))
def test_every_variant_has_every_place_equally_often(count: int, seed: int, cycles: int) -> None:
    """Over whole cycles the order is balanced, and every order is complete."""
    orders = list(islice(rotated_orders(count, np.random.default_rng(seed)), count * cycles))
    assert all(sorted(order) == list(range(count)) for order in orders)
    places = Counter((place, index) for order in orders for place, index in enumerate(order))
    assert set(places.values()) == {cycles}


def test_neighbours_change_between_cycles() -> None:
    """A variant that leaves the cache cold does not always run before the same one."""
    orders = list(islice(rotated_orders(4, np.random.default_rng(0)), 4 * 30))
    neighbours = {pair for order in orders for pair in pairwise(order)}
    assert len(neighbours) == 4 * 3


def test_a_sample_is_the_time_of_run_alone(images: list[Pixels]) -> None:
    """Each column holds its variant's time, whatever the order was."""
    clock = Clock()
    variants = [slow_variant("a", clock, 2.0), slow_variant("b", clock, 5.0)]
    measured = rounds(variants, images, plan(), clock)
    assert measured.samples_ms.tolist() == [[2.0, 5.0]] * 4


def test_rounds_go_through_the_batches_in_turn_and_all_variants_run_the_same(images: list[Pixels]) -> None:
    """Six rounds over four batches begin again with the first."""
    clock = Clock()
    timed = [TimedVariant(slow_variant(name, clock, 1.0), images, clock) for name in "ab"]
    measured = interleave([one.measure for one in timed], len(images), plan(rounds=6), clock_ns=clock)
    assert measured.batch_of_round.tolist() == [0, 1, 2, 3, 0, 1]
    assert timed[0].answers == {0: "a 0", 1: "a 1", 2: "a 2", 3: "a 0"}
    assert timed[1].answers == {0: "b 0", 1: "b 1", 2: "b 2", 3: "b 0"}


def test_warm_up_is_run_and_not_kept(images: list[Pixels]) -> None:
    """Three warm-up rounds and four measured ones call a variant seven times."""
    clock, log = Clock(), list[str]()
    measured = rounds([slow_variant("a", clock, 1.0, log)], images, plan(warmup_rounds=3), clock)
    assert (len(log), len(measured.samples_ms)) == (7, 4)


def test_without_a_number_of_rounds_time_decides_in_whole_cycles(images: list[Pixels]) -> None:
    """0.5 s at 7 ms a round is 72 rounds; three variants make it a multiple of three."""
    clock = Clock()
    variants = [slow_variant(name, clock, 7.0 / 3) for name in "abc"]
    measured = rounds(variants, images, plan(rounds=None, min_seconds=0.5), clock)
    assert len(measured.samples_ms) == 72


def test_a_short_time_still_gives_enough_rounds(images: list[Pixels]) -> None:
    """Quantiles of a handful of samples would mean nothing."""
    clock = Clock()
    measured = rounds([slow_variant("a", clock, 1.0)], images, plan(rounds=None), clock)
    assert len(measured.samples_ms) == MIN_ROUNDS


def test_progress_rises_to_one(images: list[Pixels]) -> None:
    """Also when time decides, it reaches 1 only at the end."""
    clock, shares = Clock(), list[float]()
    rounds(
        [slow_variant("a", clock, 10.0)],
        images,
        plan(rounds=None, min_seconds=0.5),
        clock,
        on_progress=shares.append,
    )
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert shares[-2] < 1


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_and_put_back(images: list[Pixels], enabled: bool) -> None:
    """The caller's setting survives, also when a variant fails."""
    seen: list[bool] = []

    def run(_: Pixels) -> None:
        seen.append(gc.isenabled())
        raise KeyError("stop")

    variant = Variant(name="a", kind="exit", run=run, read=lambda _: pytest.fail("not reached"))
    before = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(KeyError):
            rounds([variant], images, plan(), Clock())
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert seen == [False]
