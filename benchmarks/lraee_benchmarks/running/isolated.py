"""Each row in a process of its own, on the same cores, asked in balanced order to run one turn at a time.

In one process the pools of several runtimes disturb each other: threads that one leaves spinning take cores from the
next. Here a row that is not asked does nothing at all, and its worker answers only once its threads have come to rest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from lraee.bundle.strict_json import decode, encode
from lraee.errors import BundleError
from lraee.images.read import Pixels
from lraee.model import Model
from lraee_benchmarks.output_files import temporary_folder, temporary_room
from lraee_benchmarks.results.model import Peer, RowKind
from lraee_benchmarks.rows.answers import Judged, LabelledSource
from lraee_benchmarks.rows.variants import Outcome
from lraee_benchmarks.running.in_process import OnShare, RowPlan
from lraee_benchmarks.running.rounds import Measure
from lraee_benchmarks.running.worker import Job, Ready, Sample

STOP_SECONDS = 5.0
"""A worker whose stdin ends stops at once; then it is ended."""


def cores_for(threads: int) -> tuple[int, ...]:
    """As many of the cores that this process may use, one of each physical core first; all when there are no more.

    Empty where the system does not say or does not pin.
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


class IsolatedRows:
    """Rows in workers; a context manager that ends them. See `lraee_benchmarks.running.in_process.Rows`."""

    def __init__(
        self,
        plan: RowPlan,
        model: Model,
        batches: Sequence[Pixels],
        *,
        on_share: Callable[[float], None] | None = None,
    ) -> None:
        """Start the workers one after the other; `on_share` is called after each.

        Raises:
            BundleError: a worker cannot open its row, or ends; of a baseline that is kept in `failed` instead.
            DataError: temporary files cannot be written.
        """
        self._stack = ExitStack()
        self.restless: set[str] = set()
        self.failed: dict[str, str] = {}
        try:
            folder = self._stack.enter_context(temporary_folder())
            with temporary_room(folder):
                np.save(folder / "batches.npy", np.stack(batches))
            self._folder = folder
            roles = [*(("chain", name) for name in plan.chain), *(("peer", name) for name in plan.peers)]
            roles += [("floor", part) for part in plan.floor]
            settings = model.session_settings
            self._workers: list[WorkerProcess] = []
            for number, (role, name) in enumerate(roles, start=1):
                job = {
                    "role": role,
                    "name": name,
                    "bundle": str(model.bundle.folder.resolve()),
                    "threads": settings.thread_count,
                    "thread_pool": settings.thread_pool,
                    "cores": list(cores_for(settings.thread_count)),
                    "batches": str(folder / "batches.npy"),
                    "stream": plan.stream,
                }
                try:
                    self._workers.append(self._stack.enter_context(WorkerProcess(decode(Job, job, "job"))))
                except BundleError as error:
                    if role != "peer":
                        raise
                    self.failed[name] = str(error)
                if on_share is not None:
                    on_share(number / len(roles))
        except BaseException:
            self._stack.close()
            raise
        self._rows = [worker for worker in self._workers if worker.ready.kind is not None]
        self.names: list[tuple[str, RowKind]] = [
            (worker.name, worker.ready.kind) for worker in self._rows if worker.ready.kind is not None
        ]
        first = [self._rows[0], *self._rows[len(plan.chain) :]]
        self.peers: list[Peer] = [worker.ready.peer for worker in first if worker.ready.peer is not None]
        self.measures: list[Measure] = [self._measure_of(worker) for worker in self._workers]

    def __enter__(self) -> IsolatedRows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def outcomes(self) -> list[Mapping[int, Outcome]]:
        """What each row gave for each batch that it ran."""
        return [self._outcomes_of(worker) for worker in self._rows]

    def right(self, labelled: LabelledSource, on_share: OnShare) -> Judged:
        """Whether each row's best label is right."""
        columns, skipped = [], ()
        for number, worker in enumerate(self._rows, start=1):
            path = self._folder / "right.npy"
            skipped = tuple(worker.ask("right", [encode(labelled), str(path)]))  # the same for every row
            columns.append(np.load(path))
            on_share(number / len(self._rows))
        return Judged(np.column_stack(columns), skipped)

    def _measure_of(self, worker: WorkerProcess) -> Measure:
        def measure(batch: int) -> float:
            sample = decode(Sample, worker.ask("measure", batch), "sample")
            if not sample.idle:
                self.restless.add(worker.name)
            return sample.elapsed_ms

        return measure

    def _outcomes_of(self, worker: WorkerProcess) -> dict[int, Outcome]:
        path = self._folder / "outcomes.npz"
        worker.ask("outcomes", str(path))
        with np.load(path) as arrays:
            fields = [arrays[name] for name in ("probabilities", "exit_block", "early", "flops")]
            return {int(batch): Outcome(*row) for batch, *row in zip(arrays["batch"], *fields, strict=True)}


@dataclass(slots=True)
class WorkerProcess:
    """One worker and the lines to and from it."""

    job: Job
    ready: Ready
    _process: subprocess.Popen[str]
    _errors: IO[bytes]

    def __init__(self, job: Job) -> None:
        """Start it and wait until its row is open.

        Raises:
            BundleError: it cannot be opened.
        """
        self.job = job
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        # numpy's library of linear algebra would keep threads of its own spinning after the product with the labels.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lraee_benchmarks.running.worker", json.dumps(encode(job))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            encoding="utf-8",
            env=environment,
        )
        try:
            self.ready = decode(Ready, self._read("ready"), "ready")
        except BaseException:
            self.stop()
            raise

    @property
    def name(self) -> str:
        """The row's."""
        return self.job.name

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def ask(self, command: str, argument: object) -> Any:
        """Send a command and wait for its answer.

        Raises:
            BundleError: the worker refused, or ended.
        """
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # reading finds out why
            self._process.stdin.write(json.dumps([command, argument]) + "\n")
            self._process.stdin.flush()
        return self._read(command)

    def stop(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _read(self, wanted: str) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise BundleError(f"the process of the row {self.name} ended with status {status}: {last[0]}")
        answer = json.loads(line)
        if "error" in answer:
            raise BundleError(answer["error"])
        return answer[wanted]
