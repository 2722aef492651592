"""Samples to rows: quantiles, savings, exits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from lraee.images.read import Pixels
from lraee_benchmarks.analysis.intervals import median_interval, ratio_interval, saving_interval
from lraee_benchmarks.analysis.summary import (
    RowInput,
    collect,
    exit_shares,
    find_full_depths,
    share_weighted,
    summarize_latency,
    summarize_lateness,
    summarize_row,
)
from lraee_benchmarks.results.model import Accuracy, Energy, RowKind
from lraee_benchmarks.rows.policy_rows import Outcome, Variant
from lraee_benchmarks.running.in_process import TimedVariant
from lraee_benchmarks.running.rounds import Plan, interleave


def outcome(blocks: list[int], early: list[bool], flops: list[int]) -> Outcome:
    """An outcome of as many images."""
    count = len(blocks)
    return Outcome(
        np.full((count, 3), 1 / 3, np.float32),
        np.array(blocks, np.int32),
        np.array(early),
        np.array(flops, np.int64),
    )


def item(name: str, kind: RowKind, samples_ms: list[float], blocks: list[int] | None = None) -> RowInput:
    """A row with one image a round, which leaves at block 1 or runs to block 2."""
    chosen = blocks or [2] * len(samples_ms)
    outcomes = tuple(outcome([block], [block == 1], [100 if block == 2 else 60]) for block in chosen)
    return RowInput(name=name, kind=kind, samples_ms=np.array(samples_ms), outcomes=outcomes)


def test_quantiles_of_a_known_array() -> None:
    """0 to 100: the quantile is its own percentage."""
    latency = summarize_latency(np.arange(101.0), seed=0)
    assert (latency.p50_ms, latency.p90_ms, latency.p99_ms) == (50.0, 90.0, 99.0)
    assert (latency.mean_ms, latency.min_ms) == (50.0, 0.0)
    assert latency.p50_interval_ms.low < 50.0 < latency.p50_interval_ms.high


def test_reference_is_the_faster_of_chain_and_graph() -> None:
    """FP32 and exits are no full depth of this bundle, however fast they are."""
    inputs = [
        item("exit=1", "exit", [1.0]),
        item("full", "full", [10.0]),
        item("graph", "graph", [9.0]),
        item("fp32", "fp32", [2.0]),
    ]
    assert [row.name for row in find_full_depths(inputs)] == ["graph", "full"]
    assert [row.name for row in find_full_depths(inputs[:2])] == ["full"]


def test_the_faster_of_chain_and_graph_is_so_by_its_mean() -> None:
    """As savings are; the chain's median is higher here."""
    inputs = [item("graph", "graph", [8.0, 8.0, 17.0]), item("full", "full", [10.0, 10.0, 10.0])]
    assert [row.name for row in find_full_depths(inputs)] == ["full", "graph"]


def test_a_saving_is_against_the_fastest_full_depth_and_a_ratio_over_the_chain() -> None:
    """Which here is not the chain."""
    full, graph = item("full", "full", [12.0] * 3), item("graph", "graph", [10.0] * 3)
    row = summarize_row(item("exit=1", "exit", [6.0] * 3), [graph, full], full_flops=100, accuracy=None, seed=0)
    assert row.latency_saved == pytest.approx(0.4)
    assert row.chain_ratio.value == 2.0
    row = summarize_row(item("exit=1", "exit", [6, 6, 60]), [full], full_flops=100, accuracy=None, seed=0)
    assert row.chain_ratio.value == 2.0  # of medians


def test_a_row_that_costs_more_flops_has_no_ratio_of_savings() -> None:
    """Less latency per FLOP lost means nothing."""
    full = item("full", "full", [10.0])
    row = summarize_row(full, [full], full_flops=90, accuracy=None, seed=0)
    assert row.flops_saved < 0
    assert row.latency_per_flops is None


def test_what_else_was_measured_of_a_row_is_kept(accuracy: Accuracy) -> None:
    """As it was given."""
    energy = Energy(source="RAPL", joules_per_image=0.1, watts=5.0, idle_watts=2.0)
    full = item("full", "full", [10.0])
    row = summarize_row(full, [full], full_flops=100, accuracy=accuracy, energy=energy, seed=0)
    assert row.accuracy is accuracy
    assert row.energy is energy


def test_intervals_are_over_launches_and_every_full_depth() -> None:
    """Of latency, saving and ratio alike: launches that differ widen all three."""
    launches = np.repeat(np.arange(5), 12)
    random = np.random.default_rng(0)

    def series(mean: float) -> np.ndarray:
        return mean + random.normal(0, 1, 5)[launches] + random.normal(0, 0.1, 60)

    rows = [
        RowInput(name=name, kind=kind, samples_ms=series(mean), outcomes=item(name, kind, [0] * 60).outcomes)
        for name, kind, mean in (("graph", "graph", 10.0), ("full", "full", 10.1), ("exit=1", "exit", 6.0))
    ]
    graph, full, left = (dataclasses.replace(row, launches=launches) for row in rows)
    row = summarize_row(left, [graph, full], full_flops=100, accuracy=None, seed=3)
    depths = np.stack([graph.samples_ms, full.samples_ms])
    met: dict[str, Any] = {"seed": 3, "launches": launches}
    assert row.latency.p50_interval_ms == median_interval(left.samples_ms, **met)
    assert row.latency_saved_interval == saving_interval(left.samples_ms, depths, **met)
    assert row.latency_saved_interval != saving_interval(left.samples_ms, depths[:1], **met)
    assert row.chain_ratio.interval == ratio_interval(full.samples_ms, left.samples_ms, **met)


def test_savings_against_full_depth() -> None:
    """Half of the images save 40 % of the FLOPs: 20 %; means of 9 and 10 ms: 10 %; a saved FLOP is worth half."""
    full = item("full", "full", [9.0, 11.0])
    adaptive = item("adaptive=a", "adaptive", [7.0, 11.0], blocks=[1, 2])
    row = summarize_row(adaptive, [full], full_flops=100, accuracy=None, seed=0)
    assert row.flops == 80
    assert row.flops_saved == pytest.approx(0.2)
    assert row.latency_saved == pytest.approx(0.1)
    assert row.latency_per_flops == pytest.approx(0.5)
    assert row.samples_ms == (7.0, 11.0)


def test_full_depth_has_no_ratio_of_savings() -> None:
    """Nothing is divided by zero FLOPs saved."""
    full = item("full", "full", [10.0, 10.0])
    row = summarize_row(full, [full], full_flops=100, accuracy=None, seed=0)
    assert (row.flops_saved, row.latency_saved, row.latency_per_flops) == (0.0, 0.0, None)


def test_images_per_second_counts_the_batch() -> None:
    """Four images in 8 ms are 500 a second."""
    full = RowInput(
        name="full",
        kind="full",
        samples_ms=np.array([8.0]),
        outcomes=(outcome([2] * 4, [False] * 4, [100] * 4),),
    )
    assert summarize_row(full, [full], full_flops=100, accuracy=None, seed=0).images_per_second == pytest.approx(500.0)


def test_an_exit_after_the_last_block_is_not_full_depth() -> None:
    """The two are told apart, and full depth comes last."""
    shares = exit_shares([outcome([2, 2, 1, 2], [True, False, True, False], [1] * 4)], np.array([5.0]))
    assert [(share.block, share.early, share.share, share.p50_ms) for share in shares] == [
        (1, True, 0.25, None),
        (2, True, 0.25, None),
        (2, False, 0.5, None),
    ]
    assert share_weighted(shares) is None
    mixed = exit_shares([outcome([1], [True], [1]), outcome([1, 2], [True, False], [1] * 2)], np.array([5.0, 6.0]))
    assert [share.p50_ms for share in mixed] == [None, None]  # a call of two images is of both depths


def test_latency_of_each_depth_is_a_median() -> None:
    """One call of a hundred milliseconds moves the mean and not the share-weighted latency."""
    row = item("adaptive=a", "adaptive", [4.0, 4.0, 100.0, 8.0], blocks=[1, 1, 1, 2])
    shares = exit_shares(row.outcomes, row.samples_ms)
    assert [(share.block, share.share, share.p50_ms) for share in shares] == [(1, 0.75, 4.0), (2, 0.25, 8.0)]
    assert share_weighted(shares) == 5.0


def test_lateness_is_what_goes_beyond_the_deadline() -> None:
    """Two of four calls after 10 ms, one by 2."""
    late = summarize_lateness(item("deadline=10", "deadline", [9.0, 10.0, 11.0, 12.0]))
    assert late is not None
    assert (late.ms, late.late, late.most_ms) == (10.0, 0.5, 2.0)
    assert late.p99_ms == pytest.approx(1.97)
    early = summarize_lateness(item("deadline=10", "deadline", [9.0, 9.5]))
    assert early is not None
    assert (early.late, early.p99_ms, early.most_ms) == (0.0, 0.0, 0.0)
    assert summarize_lateness(item("full", "full", [9.0])) is None


def test_collect_weighs_a_batch_by_the_rounds_that_ran_it(
    fake_variants: list[Variant[Any]], images: list[Pixels]
) -> None:
    """Six rounds over four batches: the first two count twice, and each outcome belongs to its round."""
    timed = [TimedVariant(variant, images) for variant in fake_variants]
    plan = Plan(warmup_rounds=0, rounds=6, min_seconds=0.0, seed=0)
    measured = interleave([one.measure for one in timed], len(images), plan)
    names = [(variant.name, variant.kind) for variant in fake_variants]
    full, left = collect(names, [one.outcomes() for one in timed], measured)
    assert full.launches is left.launches is None
    of_launches = dataclasses.replace(measured, launches=np.array([0, 0, 0, 1, 1, 1]))
    rows = collect(names, [one.outcomes() for one in timed], of_launches)
    assert all(row.launches is of_launches.launches for row in rows)
    assert [int(o.probabilities.argmax()) for o in full.outcomes] == [0, 1, 2, 0, 0, 1]
    assert [int(o.exit_block[0]) for o in left.outcomes] == [1] * 6
    assert all(o.early.all() for o in left.outcomes)


def test_the_ratio_to_the_chain_is_of_medians_and_paired() -> None:
    """A disturbance that doubles whole rounds moves neither the ratio nor its interval; medians alone would move."""
    disturbed = np.where(np.arange(60) % 3 == 0, 2.0, 1.0)
    full, peer = item("full", "full", list(8.0 * disturbed)), item("openvino", "openvino", list(10.0 * disturbed))
    row = summarize_row(peer, [full], full_flops=100, accuracy=None, seed=0)
    assert row.chain_ratio.value == pytest.approx(0.8)
    assert row.chain_ratio.interval.low == pytest.approx(0.8)
    assert row.chain_ratio.interval.high == pytest.approx(0.8)
    assert summarize_row(full, [full], full_flops=100, accuracy=None, seed=0).chain_ratio.value == 1.0
