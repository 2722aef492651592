"""The rows of a measurement as rounds run them: here in this process; `isolated` gives each a process of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from lraee.bundle.manifest import Manifest
from lraee.errors import LraeeError
from lraee.images.read import Pixels
from lraee.model import Model
from lraee.policies.spec import parse_policy
from lraee_benchmarks.results.conditions import Peer
from lraee_benchmarks.results.model import RowKind
from lraee_benchmarks.rows.answers import Judged, LabelledSource, answers_right
from lraee_benchmarks.rows.baselines import Baseline, open_running_peer
from lraee_benchmarks.rows.floor import FloorPart, open_floor
from lraee_benchmarks.rows.policy_rows import Outcome, Variant, chain_variant, in_batches
from lraee_benchmarks.running.rounds import Measure, timed

OnShare = Callable[[float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """Which rows there will be; each has been checked to be possible."""

    chain: tuple[str, ...]
    """Policies by name, full depth among them."""
    peers: tuple[Baseline, ...]
    floor: tuple[FloorPart, ...]
    """Both parts or none; they are measured like rows, and come last."""
    stream: int | None = None
    """Images that run together, of all those that a call gives; None runs them all as one batch."""


class Rows(Protocol):
    """Rows that are open and can be run."""

    names: list[tuple[str, RowKind]]
    """Name and kind of each row; the floor's parts are not among them."""
    peers: list[Peer]
    """The chain's and one for each baseline."""
    measures: list[Measure]
    """One for each row, then one for each part of the floor."""
    busy_rows: set[str]
    """Rows whose threads were still spinning when another row was timed; known of isolated processes only."""
    failed: dict[str, str]
    """Baselines that could not be opened or run here, and why; the others are there."""

    def outcomes(self) -> list[Mapping[int, Outcome]]:
        """Give the outcome of each row for each batch that it ran."""
        ...

    def right(self, labelled: LabelledSource, on_share: OnShare) -> Judged:
        """Judge whether each row's best label is right."""
        ...


def peers_once(peers: Iterable[Peer | None]) -> list[Peer]:
    """Give each engine once; all rows of the chain have the same."""
    return list({peer.name: peer for peer in peers if peer is not None}.values())


@dataclass(slots=True)
class TimedVariant:
    """One variant with the batches it runs; keeps its first answer for each."""

    variant: Variant[Any]
    batches: Sequence[Pixels]
    clock_ns: Callable[[], int] = time.perf_counter_ns
    answers: dict[int, Any] = field(default_factory=dict)

    def measure(self, batch: int) -> float:
        """Run one batch; milliseconds of `Variant.run` alone."""
        pixels = self.batches[batch]
        before = self.clock_ns()
        answer = self.variant.run(pixels)
        elapsed_ms = (self.clock_ns() - before) / 1e6
        self.answers.setdefault(batch, answer)
        return elapsed_ms

    def outcomes(self) -> dict[int, Outcome]:
        """Read the answers that were kept."""
        return {batch: self.variant.read(answer) for batch, answer in self.answers.items()}


class LocalRows:
    """All rows in this process, over one pool and one arena."""

    def __init__(self, plan: RowPlan, model: Model, batches: Sequence[Pixels]) -> None:
        batch = plan.stream or len(batches[0])
        chain = [chain_variant(model, name, parse_policy(name), stream=plan.stream) for name in plan.chain]
        self.failed: dict[str, str] = {}
        others: list[Variant[Any]] = []
        for name in plan.peers:
            try:
                others.append(open_running_peer(model.bundle, name, model.session_settings, batches[0][:batch]))
            except LraeeError as error:
                self.failed[name] = str(error)
        if plan.stream is not None:
            others = [in_batches(other, plan.stream) for other in others]
        self._manifest: Manifest = model.manifest
        self._labels = model.labels
        self._variants: list[Variant[Any]] = [*chain, *others]
        self._timed = [TimedVariant(variant, batches) for variant in self._variants]
        floor = [open_floor(model.bundle, part, model.session_settings, batch=batch) for part in plan.floor]
        self.busy_rows: set[str] = set()
        self.names = [(variant.name, variant.kind) for variant in self._variants]
        self.peers = peers_once(variant.peer for variant in self._variants)
        self.measures: list[Measure] = [*(timed.measure for timed in self._timed), *map(timed, floor)]

    def outcomes(self) -> list[Mapping[int, Outcome]]:
        """Give what `Rows.outcomes` says."""
        return [timed.outcomes() for timed in self._timed]

    def right(self, labelled: LabelledSource, on_share: OnShare) -> Judged:
        """Give what `Rows.right` says."""
        return answers_right(self._variants, labelled, self._manifest, self._labels, on_progress=on_share)
