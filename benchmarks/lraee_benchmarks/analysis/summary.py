"""Turn raw samples into the rows of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.model import Model
from lraee.policies import Deadline
from lraee.policies.spec import parse_policy
from lraee_benchmarks.analysis.intervals import Launches, median_interval, ratio_interval, saving_interval
from lraee_benchmarks.results.conditions import BundleSummary
from lraee_benchmarks.results.model import Accuracy, Energy, ExitShare, Floor, Latency, Lateness, Ratio, Row, RowKind
from lraee_benchmarks.rows.floor import weight_bytes
from lraee_benchmarks.rows.policy_rows import Outcome
from lraee_benchmarks.running.rounds import Measured

FULL_DEPTH_KINDS: tuple[RowKind, ...] = ("full", "graph")
"""Rows that compute the bundle's full depth; the fastest of them is what savings are measured against, so that early
exit is not praised for time that running part by part has cost. Which is fastest is itself measured: intervals of
savings select it again in every launch or resample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowInput:
    """One row and what the rounds gave for it."""

    name: str
    kind: RowKind
    samples_ms: NDArray[np.float64]
    """(rounds,) float64."""
    outcomes: tuple[Outcome, ...]
    """One for each round."""
    launches: Launches = None
    """(rounds,), the process of each."""


def collect(
    rows: Sequence[tuple[str, RowKind]], outcomes: Sequence[Mapping[int, Outcome]], measured: Measured
) -> list[RowInput]:
    """Pair the rows with their samples.

    Args:
        rows: name and kind of each.
        outcomes: of each row by batch.
        measured: its first columns are the rows.
    """
    return [
        RowInput(
            name=name,
            kind=kind,
            samples_ms=measured.samples_ms[:, index],
            outcomes=tuple(outcomes[index][int(batch)] for batch in measured.batch_of_round),
            launches=measured.launches,
        )
        for index, (name, kind) in enumerate(rows)
    ]


def find_full_depths(inputs: Sequence[RowInput]) -> list[RowInput]:
    """Find the rows of `FULL_DEPTH_KINDS`, the fastest by mean latency first; `inputs` must hold the full chain."""
    full = [item for item in inputs if item.kind in FULL_DEPTH_KINDS]
    return sorted(full, key=lambda item: float(item.samples_ms.mean()))


def find_full(inputs: Sequence[RowInput]) -> RowInput:
    """Find the chain at full depth, which is always among the rows."""
    return next(item for item in inputs if item.kind == "full")


def summarize_bundle(model: Model) -> BundleSummary:
    """Describe the bundle for a report."""
    manifest = model.manifest
    return BundleSummary(
        name=model.bundle.place.name,
        model=manifest.model.id,
        weights=manifest.model.weights,
        fingerprint=manifest.model.fingerprint,
        precision=manifest.precision,
        quantizer=manifest.quantization.quantizer if manifest.quantization is not None else None,
        blocks=manifest.tower.blocks,
        labels=manifest.labels.count,
        size_bytes=sum(entry.size_bytes for entry in manifest.files),
        full_flops=manifest.full_flops,
    )


def summarize_row(
    item: RowInput,
    full_depths: Sequence[RowInput],
    *,
    full_flops: int,
    accuracy: Accuracy | None,
    energy: Energy | None = None,
    seed: int,
) -> Row:
    """Make one row.

    Args:
        item: the row's samples and outcomes.
        full_depths: of `find_full_depths`, from the same rounds; savings are against the first.
        full_flops: of one image at full depth.
        accuracy: of the row, if it was measured.
        energy: of the row, if it was measured.
        seed: of the bootstrap.
    """
    flops = float(np.mean([outcome.flops.mean() for outcome in item.outcomes]))
    flops_saved = 1 - flops / full_flops
    latency_saved = float(1 - item.samples_ms.mean() / full_depths[0].samples_ms.mean())
    batch = len(item.outcomes[0].flops)
    shares = exit_shares(item.outcomes, item.samples_ms)
    return Row(
        name=item.name,
        kind=item.kind,
        latency=summarize_latency(item.samples_ms, seed=seed, launches=item.launches),
        images_per_second=float(1000 * batch / item.samples_ms.mean()),
        flops=flops,
        flops_saved=flops_saved,
        latency_saved=latency_saved,
        latency_saved_interval=saving_interval(
            item.samples_ms,
            np.stack([depth.samples_ms for depth in full_depths]),
            seed=seed,
            launches=item.launches,
        ),
        latency_per_flops=latency_saved / flops_saved if flops_saved > 0 else None,
        chain_ratio=summarize_ratio(
            find_full(full_depths).samples_ms, item.samples_ms, seed=seed, launches=item.launches
        ),
        exit_shares=shares,
        share_weighted_ms=share_weighted(shares),
        lateness=summarize_lateness(item),
        energy=energy,
        accuracy=accuracy,
        samples_ms=tuple(float(sample) for sample in item.samples_ms),
    )


def summarize_ratio(
    samples_ms: NDArray[np.float64], other_ms: NDArray[np.float64], *, seed: int, launches: Launches = None
) -> Ratio:
    """Divide the medians of two series (rounds,) from the same rounds."""
    return Ratio(
        value=float(np.median(samples_ms) / np.median(other_ms)),
        interval=ratio_interval(samples_ms, other_ms, seed=seed, launches=launches),
    )


def summarize_latency(samples_ms: NDArray[np.float64], *, seed: int, launches: Launches = None) -> Latency:
    """Quantiles (linear between samples), mean and minimum of (rounds,) milliseconds."""
    p50, p90, p99 = np.percentile(samples_ms, [50, 90, 99])
    return Latency(
        p50_ms=float(p50),
        p50_interval_ms=median_interval(samples_ms, seed=seed, launches=launches),
        p90_ms=float(p90),
        p99_ms=float(p99),
        mean_ms=float(samples_ms.mean()),
        min_ms=float(samples_ms.min()),
    )


def exit_shares(outcomes: Sequence[Outcome], samples_ms: NDArray[np.float64]) -> tuple[ExitShare, ...]:
    """Count where the images left, by block; full depth comes last.

    Args:
        outcomes: one for each round.
        samples_ms: (rounds,) float64; gives each depth its median where a call has one image.
    """
    single = all(len(outcome.flops) == 1 for outcome in outcomes)
    places: dict[tuple[bool, int], list[float]] = {}
    for outcome, sample in zip(outcomes, samples_ms, strict=True):
        for block, early in zip(outcome.exit_block, outcome.early, strict=True):
            places.setdefault((not bool(early), int(block)), []).append(float(sample))
    total = sum(map(len, places.values()))
    return tuple(
        ExitShare(
            block=block, early=not full, share=len(found) / total, p50_ms=float(np.median(found)) if single else None
        )
        for (full, block), found in sorted(places.items())
    )


def share_weighted(shares: Sequence[ExitShare]) -> float | None:
    """Weight the medians of the depths by their shares; None where a depth has none."""
    weighted = [exit.share * exit.p50_ms for exit in shares if exit.p50_ms is not None]
    return float(np.sum(weighted)) if len(weighted) == len(shares) else None


def summarize_lateness(item: RowInput) -> Lateness | None:
    """Say by how much the calls of a row missed its deadline; None for a row without one."""
    policy = parse_policy(item.name) if item.kind == "deadline" else None
    if not isinstance(policy, Deadline):
        return None
    over = np.maximum(item.samples_ms - policy.ms, 0.0)
    return Lateness(
        ms=policy.ms,
        late=float((over > 0).mean()),
        p99_ms=float(np.percentile(over, 99)),
        most_ms=float(over.max()),
    )


def summarize_floor(full: RowInput, measured: Measured, floor: Path, *, products: int, seed: int) -> Floor:
    """Make the part of a report that holds the lower bounds.

    Args:
        full: the chain at full depth.
        measured: the same rounds; its last columns are the GEMMs alone and the reading.
        floor: ``floor.onnx``.
        products: number of GEMMs.
        seed: of the bootstrap.
    """
    size, launches = weight_bytes(floor), measured.launches
    gemm_ms, read_ms = measured.samples_ms[:, -2], measured.samples_ms[:, -1]
    return Floor(
        products=products,
        weight_bytes=size,
        gemm=summarize_latency(gemm_ms, seed=seed, launches=launches),
        chain_to_gemm=summarize_ratio(full.samples_ms, gemm_ms, seed=seed, launches=launches),
        read=summarize_latency(read_ms, seed=seed, launches=launches),
        read_bytes_per_second=float(size / np.median(read_ms) * 1000),
        chain_to_read=summarize_ratio(full.samples_ms, read_ms, seed=seed, launches=launches),
        gemm_samples_ms=tuple(float(sample) for sample in gemm_ms),
        read_samples_ms=tuple(float(sample) for sample in read_ms),
    )
