"""One row, in the process that `isolated` starts for it.

A turn is one run that is not timed, which brings threads and weights back into the caches, and one that is. Then the
process waits until its threads are idle: threads that spin for a while after a run would take a core from the next row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from lraee.errors import BundleError
from lraee.loading import load
from lraee.ort.sessions import use_global_thread_pool
from lraee_benchmarks.results.conditions import Peer
from lraee_benchmarks.results.model import RowKind
from lraee_benchmarks.rows.answers import Judged, LabelledSource
from lraee_benchmarks.rows.onnxruntime_row import check_threads_alike
from lraee_benchmarks.rows.policy_rows import Outcome
from lraee_benchmarks.running.in_process import LocalRows, RowPlan

IDLE_SHARE = 0.1
"""Of a core; below, nothing spins."""

IDLE_PROBE_S = 0.002

IDLE_LIMIT_S = 1.0
"""Torch's and OpenVINO's threads spin for 0.2 s at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is started for."""

    name: str
    """Policy, baseline or part of the floor."""
    rows: RowPlan
    """This row alone."""
    bundle: Path
    threads: int
    thread_pool: Literal["session", "global"]
    cores: tuple[int, ...]
    """That the process may run on; empty leaves it to the system."""
    batches: Path
    """An .npy of (batches, batch, size, size, 3) uint8, which all workers map into memory."""


class Ready(NamedTuple):
    """What a worker says of its row once it is open."""

    kind: RowKind | None
    """None for a part of the floor."""
    peer: Peer | None


class Turn(NamedTuple):
    """The result of a turn."""

    elapsed_ms: float
    idle: bool
    """Whether all threads of the process were idle when this was sent."""


class Worker:
    """One row; it is made in one process and opened in another."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._rows: LocalRows

    def open(self) -> Ready:
        """Open the row.

        Raises:
            LraeeError: the process gets too few threads, or the row cannot be opened.
        """
        job = self._job
        if job.cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, job.cores)
        if job.thread_pool == "global":
            use_global_thread_pool(job.threads)
        model = load(job.bundle, threads=job.threads, thread_pool=job.thread_pool)
        check_threads_alike(job.name, model.threads, job.threads)
        batches = [np.asarray(batch) for batch in np.load(job.batches, mmap_mode="c")]
        self._rows = rows = LocalRows(job.rows, model, batches)
        if rows.failed:
            raise BundleError(rows.failed[job.name])
        return Ready(rows.names[0][1] if rows.names else None, rows.peers[0] if rows.peers else None)

    def measure(self, batch: int) -> Turn:
        """Take a turn on the batch of that index."""
        (measure,) = self._rows.measures
        measure(batch)
        elapsed_ms = measure(batch)
        return Turn(elapsed_ms, wait_until_idle())

    def outcomes(self) -> Mapping[int, Outcome]:
        """Give the outcome of each batch that the row ran."""
        return self._rows.outcomes()[0]

    def right(self, labelled: LabelledSource) -> Judged:
        """Judge whether the row's best label is right."""
        return self._rows.right(labelled, lambda share: None)


def wait_until_idle(limit_s: float = IDLE_LIMIT_S) -> bool:
    """Sleep until the threads of this process use less than `IDLE_SHARE` of a core; False if they do not stop."""
    start = time.perf_counter()
    while True:
        cpu, wall = time.process_time(), time.perf_counter()
        time.sleep(IDLE_PROBE_S)
        now = time.perf_counter()
        if time.process_time() - cpu < IDLE_SHARE * (now - wall):
            return True
        if now - start > limit_s:
            return False
