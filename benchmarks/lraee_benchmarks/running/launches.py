"""A measurement in several launches: processes started one after the other, each with its share of the rounds.

Where memory lies, and how threads fall on cores, is settled when a process starts, so that two runs of one program
differ by more than the rounds of one run show. Intervals over launches predict the range of the next run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lraee.images.read import Pixels
from lraee.loading import load
from lraee.model import Model
from lraee.ort.sessions import global_thread_pool_is_set, use_global_thread_pool
from lraee_benchmarks.results.conditions import Peer
from lraee_benchmarks.results.model import RowKind
from lraee_benchmarks.rows.onnxruntime_row import check_threads_alike
from lraee_benchmarks.rows.policy_rows import Outcome
from lraee_benchmarks.running.in_process import LocalRows, OnShare, RowPlan, Rows
from lraee_benchmarks.running.isolated import isolated_rows
from lraee_benchmarks.running.process import Remote
from lraee_benchmarks.running.rounds import Measured, Plan, interleave


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MeasuredRows:
    """What the rounds of one process gave, or of several together; fields as in `Rows`."""

    names: Sequence[tuple[str, RowKind]]
    peers: Sequence[Peer]
    busy_rows: frozenset[str]
    failed: Mapping[str, str]
    outcomes: Sequence[Mapping[int, Outcome]]
    measured: Measured
    """Its columns are the rows, then the parts of the floor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """What one process of a measurement does."""

    bundle: Path
    threads: int
    thread_pool: Literal["session", "global"]
    isolated: bool
    rows: RowPlan
    plan: Plan

    def measure(self, batches: Sequence[Pixels]) -> MeasuredRows:
        """Open the rows in this process and run them."""
        model = load(self.bundle, threads=self.threads, thread_pool=self.thread_pool)
        check_threads_alike("full", model.threads, self.threads)
        with opened_rows(self.rows, model, batches, isolated=self.isolated) as rows:
            return measure_rows(rows, batches, self.plan)


def set_pool(model: Model) -> None:
    """Set the process-wide pool, if the model is to use it and it is not set yet; before any session is made."""
    if model.settings.thread_pool == "global" and not global_thread_pool_is_set():
        use_global_thread_pool(model.threads)


@contextmanager
def opened_rows(
    rows: RowPlan, model: Model, batches: Sequence[Pixels], *, isolated: bool, on_share: OnShare | None = None
) -> Iterator[Rows]:
    """Open rows in this process, with all sessions made, or in workers, which end with the block.

    Args:
        rows: which.
        model: in this process.
        batches: the images.
        isolated: a process for each row.
        on_share: called after each worker has started, with the share of those that have.
    """
    if isolated:
        with isolated_rows(rows, model, batches, on_share=on_share) as workers:
            yield workers
        return
    wanted = model.threads
    set_pool(model)
    model.warm()
    check_threads_alike("full", model.threads, wanted)
    yield LocalRows(rows, model, batches)


def measure_rows(
    rows: Rows, batches: Sequence[Pixels], plan: Plan, *, on_progress: Callable[[float], None] | None = None
) -> MeasuredRows:
    """Run open rows in rounds and read their outcomes."""
    measured = interleave(rows.measures, len(batches), plan, on_progress=on_progress)
    return MeasuredRows(
        names=rows.names,
        peers=rows.peers,
        busy_rows=frozenset(rows.busy_rows),
        failed=rows.failed,
        outcomes=rows.outcomes(),
        measured=measured,
    )


def measure_in_launches(launch: Launch, batches: Sequence[Pixels], count: int, on_share: OnShare) -> MeasuredRows:
    """Start the launches and put together what they give.

    Args:
        launch: what each does; its plan has each one's share of the rounds.
        batches: the images.
        count: launches.
        on_share: called after each with the share that is done.

    Raises:
        BundleError: a launch failed.
        DataError: temporary files cannot be written.
    """
    failed: dict[str, str] = {}
    found: list[MeasuredRows] = []
    for number in range(count):
        start = number * len(batches) // count  # launches begin with different images
        plan = dataclasses.replace(launch.plan, seed=launch.plan.seed + number, first_batch=start)
        peers = tuple(peer for peer in launch.rows.peers if peer not in failed)  # none is tried a second time
        rows = dataclasses.replace(launch.rows, peers=peers)
        with Remote("a launch", dataclasses.replace(launch, plan=plan, rows=rows)) as remote:
            found.append(remote.ask(Launch.measure, batches))
        failed |= found[-1].failed
        on_share((number + 1) / count)
    return joined(found)


def joined(found: Sequence[MeasuredRows]) -> MeasuredRows:
    """Put launches together; a row that failed in one of them is left out of all."""
    failed = {name: reason for one in found for name, reason in one.failed.items()}
    names = [name for name in found[0].names if name[0] not in failed]
    outcomes: list[dict[int, Outcome]] = [{} for _ in names]
    samples = []
    for one in found:
        columns = [one.names.index(name) for name in names]
        for known, column in zip(outcomes, columns, strict=True):
            known |= one.outcomes[column]
        floor = range(len(one.names), one.measured.samples_ms.shape[1])
        samples.append(one.measured.samples_ms[:, [*columns, *floor]])
    return MeasuredRows(
        names=names,
        peers=[peer for peer in found[0].peers if peer.name not in failed],
        busy_rows=frozenset(name for one in found for name in one.busy_rows) - failed.keys(),
        failed=failed,
        outcomes=outcomes,
        measured=Measured(
            samples_ms=np.concatenate(samples),
            batch_of_round=np.concatenate([one.measured.batch_of_round for one in found]),
            launches=np.repeat(np.arange(len(found)), [len(one) for one in samples]),
        ),
    )
