"""Each row in a process of its own, on the same cores, asked in balanced order to run one turn at a time.

In one process the pools of several runtimes disturb each other: threads that one leaves spinning take cores from the
next. Here a row that is not asked does nothing, and its worker answers only when its threads are idle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lraee.errors import BundleError
from lraee.images.read import Pixels
from lraee.model import Model
from lraee_benchmarks.output_files import temporary_folder, temporary_room
from lraee_benchmarks.results.conditions import Peer
from lraee_benchmarks.results.model import RowKind
from lraee_benchmarks.rows.answers import Judged, LabelledSource
from lraee_benchmarks.rows.policy_rows import Outcome
from lraee_benchmarks.running.in_process import OnShare, RowPlan, peers_once
from lraee_benchmarks.running.process import Remote
from lraee_benchmarks.running.rounds import Measure
from lraee_benchmarks.running.worker import Job, Ready, Worker

ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""Numpy's linear algebra would keep threads of its own spinning after the GEMM with the labels."""


def cores_for(threads: int) -> tuple[int, ...]:
    """Choose as many of the cores that this process may use, one of each physical core first.

    All of them when there are no more; none where the system does not pin processes.
    """
    if not hasattr(os, "sched_getaffinity"):
        return ()
    allowed = sorted(os.sched_getaffinity(0))
    if threads >= len(allowed):
        return tuple(allowed)
    siblings: dict[str, list[int]] = {}
    for core in allowed:
        path = Path(f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list")
        physical = path.read_text(encoding="ascii").strip() if path.is_file() else str(core)
        siblings.setdefault(physical, []).append(core)
    first_to_last = sorted(
        allowed, key=lambda core: (next(g.index(core) for g in siblings.values() if core in g), core)
    )
    return tuple(sorted(first_to_last[:threads]))


@contextmanager
def isolated_rows(
    plan: RowPlan, model: Model, batches: Sequence[Pixels], *, on_share: Callable[[float], None] | None = None
) -> Iterator[IsolatedRows]:
    """Start the workers one after the other, and end them when the block ends.

    Args:
        plan: which rows.
        model: loaded here; each worker loads it again, with the same settings.
        batches: the images.
        on_share: called after each worker has started, with the share of those that have.

    Raises:
        BundleError: a worker cannot open its row, or ends; of a baseline that is kept in `IsolatedRows.failed` instead.
        DataError: temporary files cannot be written.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        with temporary_room(folder):
            np.save(folder / "batches.npy", np.stack(batches))
        jobs = _jobs(plan, model, folder / "batches.npy")
        workers: list[_OpenRow] = []
        failed: dict[str, str] = {}
        for number, job in enumerate(jobs, start=1):
            name = f"the process of the row {job.name}"
            remote = stack.enter_context(Remote(name, Worker(job), environment=ENVIRONMENT))
            try:
                workers.append(_OpenRow(job.name, remote, remote.ask(Worker.open)))
            except BundleError as error:
                if not job.rows.peers:
                    raise
                remote.stop()  # its threads might spin while other rows are timed
                failed[job.name] = str(error)
            if on_share is not None:
                on_share(number / len(jobs))
        yield IsolatedRows(workers, failed)


def _jobs(plan: RowPlan, model: Model, batches: Path) -> list[Job]:
    """One job for each row and each part of the floor."""
    settings = model.session_settings
    none = RowPlan(chain=(), peers=(), floor=(), stream=plan.stream)
    rows = [(name, replace(none, chain=(name,))) for name in plan.chain]
    rows += [(name, replace(none, peers=(name,))) for name in plan.peers]
    rows += [(part, replace(none, floor=(part,))) for part in plan.floor]
    return [
        Job(
            name=name,
            rows=row,
            bundle=model.bundle.place,
            threads=settings.thread_count,
            thread_pool=settings.thread_pool,
            cores=cores_for(settings.thread_count),
            batches=batches,
        )
        for name, row in rows
    ]


@dataclass(frozen=True, slots=True)
class _OpenRow:
    name: str
    worker: Remote[Worker]
    ready: Ready


class IsolatedRows:
    """Rows in workers, with the members of `lraee_benchmarks.running.in_process.Rows`."""

    def __init__(self, workers: Sequence[_OpenRow], failed: dict[str, str]) -> None:
        self._rows = [row for row in workers if row.ready.kind is not None]
        self.failed = failed
        self.busy_rows: set[str] = set()
        self.names: list[tuple[str, RowKind]] = [(row.name, kind) for row in workers if (kind := row.ready.kind)]
        self.peers: list[Peer] = peers_once(row.ready.peer for row in self._rows)
        self.measures: list[Measure] = [self._measure_of(row) for row in workers]

    def outcomes(self) -> list[Mapping[int, Outcome]]:
        """Give the outcome of each row for each batch that it ran."""
        return [row.worker.ask(Worker.outcomes) for row in self._rows]

    def right(self, labelled: LabelledSource, on_share: OnShare) -> Judged:
        """Judge whether each row's best label is right."""
        found: list[Judged] = []
        for row in self._rows:
            found.append(row.worker.ask(Worker.right, labelled))
            on_share(len(found) / len(self._rows))
        return Judged(np.column_stack([judged.right[:, 0] for judged in found]), found[-1].skipped)

    def _measure_of(self, row: _OpenRow) -> Measure:
        def measure(batch: int) -> float:
            turn = row.worker.ask(Worker.measure, batch)
            if not turn.idle:
                self.busy_rows.add(row.name)
            return turn.elapsed_ms

        return measure
