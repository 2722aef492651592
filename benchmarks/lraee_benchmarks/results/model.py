"""The report of one benchmark as data; encoded, it is the JSON file.

Shares and savings are fractions of 1. Times are milliseconds of the image tower (stem to probabilities) unless a
field says otherwise; FLOPs count multiply-add as 2 and matrix products only. A field that is added, removed or
changes its meaning raises `SCHEMA`; a further `RowKind` does not.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final, Literal

from lraee.bundle.strict_json import decode, encode
from lraee.errors import DataError
from lraee_benchmarks.results.conditions import (
    BundleSummary,
    ColdStart,
    Device,
    Peer,
    Preprocessing,
    Settings,
    Stability,
)

SCHEMA: Final = "lraee-bench/3"

RowKind = Literal[
    "adaptive",
    "full",
    "merged",
    "exit",
    "confidence",
    "entropy",
    "patience",
    "replay",
    "deadline",
    "graph",
    "fp32",
    "static",
    "dynamic",
    "openvino",
    "torch",
    "torch-compiled",
]
"""How a row runs the tower.

- ``adaptive``: each image leaves by the learned gates, at one operating point (LRA-EE).
- ``full``: all blocks, no exit. ``merged``: the same with merged tokens.
- ``exit``: every image leaves after the same block.
- ``confidence``, ``entropy``: each image leaves by one threshold on the largest probability, or on the entropy.
- ``patience``: each image leaves once consecutive exits agree.
- ``replay``: images leave after given blocks in given shares, whatever they show.
- ``deadline``: the best answer when the time is up.
- ``graph``, ``fp32``: baselines, one session each.
- ``static``, ``dynamic``: what torch's exporter and ONNX Runtime's quantization tools give by default.
- ``openvino``: the bundle's ``graph.onnx`` compiled by OpenVINO. ``torch``, ``torch-compiled``: open_clip's
  float tower, eager and by ``torch.compile``.

The rows up to ``deadline`` run the parts one by one; the three heuristics visit every exit on their way.
"""

BY_IMAGE: Final[tuple[RowKind, ...]] = ("adaptive", "confidence", "entropy", "patience", "replay")
"""Kinds in which each image leaves at a depth of its own, so that latencies spread by design."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """95 %. Where there are several launches: of ratios and savings for the next run of as many, of latencies for one
    launch more (Student's prediction interval). Else, and of accuracies, over samples (bootstrap)."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The full chain's median latency over another median, from the same rounds: below 1 the chain is faster."""

    value: float
    interval: Interval
    """Rounds are drawn again together for both, so that what disturbed both cancels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Of one call with one batch."""

    p50_ms: float
    p50_interval_ms: Interval
    p90_ms: float
    p99_ms: float
    mean_ms: float
    min_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitShare:
    """How many of the images left where."""

    block: int
    early: bool
    """False for those that ran to the end."""
    share: float
    p50_ms: float | None
    """Median latency of the calls whose image left here; None where a call has several images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lateness:
    """By how much a row with a deadline missed it."""

    ms: float
    """The deadline."""
    late: float
    """Share of the calls that ended after it."""
    p99_ms: float
    """Overshoot that 1 % of all calls exceed; 0 when fewer were late."""
    most_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What one image took, over some seconds in which nothing but this row ran."""

    source: str
    """``RAPL`` (CPU package) or ``PMIC`` (all rails of a Raspberry Pi 5 that it can measure)."""
    joules_per_image: float
    watts: float
    idle_watts: float
    """Of the device doing nothing, measured before; it is contained in the other two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy:
    """Top-1 accuracy of one row."""

    images: int
    top1: float
    interval: Interval
    difference: float
    """To the full chain, on the same images."""
    difference_interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One way of running the tower."""

    name: str
    """As ``--policy`` or ``--baselines`` spells it."""
    kind: RowKind
    latency: Latency
    images_per_second: float
    """batch / mean latency."""
    flops: float
    """Mean of one image over the measured images."""
    flops_saved: float
    """Against full depth."""
    latency_saved: float
    """1 - mean / mean of `Report.reference`, over the same images."""
    latency_saved_interval: Interval
    """The fastest full-depth row is selected again in each launch or resample; the interval of the reference itself
    therefore has a width where two candidates are close."""
    latency_per_flops: float | None
    """latency_saved / flops_saved: what a saved FLOP is worth in time; None where no FLOPs are saved."""
    chain_ratio: Ratio
    """``full`` to this row."""
    exit_shares: tuple[ExitShare, ...]
    share_weighted_ms: float | None
    """Medians of the depths, weighted by their shares: the mean without what disturbed single calls. None as for
    `ExitShare.p50_ms`."""
    lateness: Lateness | None
    """Of rows with a deadline."""
    energy: Energy | None
    """None where the device has no readable meter."""
    accuracy: Accuracy | None
    samples_ms: tuple[float, ...]
    """Latency of each round, in the order of the rounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """How close the full chain is to lower bounds of this CPU, measured in the same rounds as the rows."""

    products: int
    """Number of GEMMs with weights."""
    weight_bytes: int
    """Of all GEMMs, with scales and biases."""
    gemm: Latency
    """All GEMMs in order and nothing else: inputs are quantized already, outputs are float32, sessions have the same
    settings."""
    chain_to_gemm: Ratio
    read: Latency
    """Reading as many bytes once, on as many threads."""
    read_bytes_per_second: float
    """weight_bytes / median of `read`."""
    chain_to_read: Ratio
    gemm_samples_ms: tuple[float, ...]
    read_samples_ms: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartTime:
    """One part of the tower in a run that visits every exit."""

    part: str
    """As in the manifest."""
    p50_ms: float
    share_of_full: float
    """Of a run to the end that visits no exit, ratio of medians from the same rounds; not the share of its FLOPs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that `lraee-bench` measured."""

    schema: Literal["lraee-bench/3"]
    created: str
    """UTC, ISO 8601."""
    device: Device
    bundle: BundleSummary
    settings: Settings
    stability: Stability
    preprocessing: Preprocessing | None
    cold_start: ColdStart | None
    reference: str
    """Row that `Row.latency_saved` compares with: the faster of full chain and one graph."""
    accuracy_source: str | None
    rows: tuple[Row, ...]
    peers: tuple[Peer, ...]
    """One for the chain and one for each baseline."""
    floor: Floor | None
    parts: tuple[PartTime, ...]
    """In the order in which an image meets them; empty when not measured."""
    notes: tuple[str, ...]

    def row(self, name: str) -> Row | None:
        """The row called `name`, or None."""
        return next((row for row in self.rows if row.name == name), None)

    def early_exit(self) -> Row | None:
        """The first operating point, which is the default one, if it saves FLOPs."""
        return next((row for row in self.rows if row.kind == "adaptive" and row.flops_saved > 0), None)


def to_json(report: Report) -> str:
    """The text of the JSON file."""
    return json.dumps(encode(report), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def from_json(text: str) -> Report:
    """Read what `to_json` wrote.

    Raises:
        DataError: it is not JSON or of another schema.
        BundleError: a key is unknown, missing or of another type.
    """
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise DataError(f"the report is not JSON ({error}); wanted a file written by lraee-bench --json") from error
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != SCHEMA:
        raise DataError(f"the report has the schema {schema!r}, wanted {SCHEMA!r}; measure again with this version")
    return decode(Report, raw, "report")
