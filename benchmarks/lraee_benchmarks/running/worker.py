"""What `isolation` runs in a process of its own: one row, asked over stdin, answering over stdout, a line of JSON each.

A turn is one run that is not timed, which brings the row's threads and weights back, and one that is. Then the process
waits until none of its threads runs any more: threads that spin for a while after a run would take a core from the
next row.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, cast, get_args

import numpy as np

from lraee.bundle.strict_json import decode, encode
from lraee.errors import LraeeError
from lraee.loading import load
from lraee.model import Model
from lraee.ort.sessions import use_global_thread_pool
from lraee.policies.spec import parse_policy
from lraee_benchmarks.output_files import temporary_room
from lraee_benchmarks.results.model import Peer, RowKind
from lraee_benchmarks.rows.answers import LabelledSource, answers_right
from lraee_benchmarks.rows.baselines import Baseline, open_running_peer
from lraee_benchmarks.rows.floor import FloorPart, open_floor
from lraee_benchmarks.rows.onnxruntime_row import check_threads_alike
from lraee_benchmarks.rows.variants import chain_variant, in_batches
from lraee_benchmarks.running.in_process import TimedCall, TimedVariant

IDLE_SHARE = 0.1
"""Of a core; below, nothing spins."""

IDLE_PROBE_S = 0.002

IDLE_LIMIT_S = 1.0
"""Torch's and OpenVINO's threads spin for 0.2 s at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is started for; its only argument, as JSON."""

    role: Literal["chain", "peer", "floor"]
    name: str
    """Policy, baseline or part of the floor."""
    bundle: str
    threads: int
    thread_pool: Literal["session", "global"]
    cores: tuple[int, ...]
    """That the process may run on; empty leaves it to the system."""
    batches: str
    """Path of an .npy of (batches, batch, size, size, 3) uint8."""
    stream: int | None
    """As in `RowPlan`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """The first answer."""

    kind: RowKind | None
    """None for the floor."""
    peer: Peer | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The answer to ``measure``."""

    elapsed_ms: float
    idle: bool
    """Whether all threads had come to rest when this was sent."""


def main() -> None:
    """Open the row, then answer until stdin ends."""
    answers = _private_stdout()
    job = decode(Job, json.loads(sys.argv[1]), "job")
    if job.cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, job.cores)
    try:
        worker = Worker(job)
        _answer(answers, {"ready": encode(worker.ready)})
        for line in sys.stdin:
            command, argument = json.loads(line)
            _answer(answers, {command: worker.do(command, argument)})
    except LraeeError as error:
        _answer(answers, {"error": str(error)})


class Worker:
    """One row."""

    def __init__(self, job: Job) -> None:
        """Raises what `check_threads_alike`, `open_running_peer`, `chain_variant` or `open_floor` raise."""
        if job.thread_pool == "global":
            use_global_thread_pool(job.threads)
        self._model: Model = load(job.bundle, threads=job.threads, thread_pool=job.thread_pool)
        check_threads_alike(job.name, self._model.threads, job.threads)
        batches = np.load(job.batches, mmap_mode="r")
        batch = job.stream or batches.shape[1]
        settings = self._model.session_settings
        self._timed: TimedVariant | TimedCall
        if job.role == "floor":
            call = open_floor(self._model.bundle, cast(FloorPart, job.name), settings, batch=batch)
            self._timed = TimedCall(call)
            self.ready = Ready(kind=None, peer=None)
            return
        variant: Any
        if job.role == "chain":
            variant = chain_variant(self._model, job.name, parse_policy(job.name), stream=job.stream)
        else:
            assert job.name in get_args(Baseline)
            name = cast(Baseline, job.name)
            variant = open_running_peer(self._model.bundle, name, settings, np.array(batches[0][:batch]))
            if job.stream is not None:
                variant = in_batches(variant, job.stream)
        self._timed = TimedVariant(variant, [np.asarray(batch) for batch in batches])
        self.ready = Ready(kind=variant.kind, peer=variant.peer)

    def do(self, command: str, argument: Any) -> Any:
        """Answer one command: ``measure`` BATCH, ``outcomes`` PATH or ``right`` [LABELLED SOURCE, PATH]."""
        if command == "measure":
            self._timed.measure(argument)
            elapsed_ms = self._timed.measure(argument)
            return encode(Sample(elapsed_ms=elapsed_ms, idle=wait_until_idle()))
        assert isinstance(self._timed, TimedVariant)
        if command == "outcomes":
            self._save_outcomes(Path(argument))
        elif command == "right":
            source, path = argument
            labelled = decode(LabelledSource, source, "labelled")
            judged = answers_right([self._timed.variant], labelled, self._model.manifest, self._model.labels)
            with temporary_room(Path(path).parent):
                np.save(path, judged.right[:, 0])
            return list(judged.skipped)
        else:
            raise ValueError(f"a worker was told {command!r}, wanted measure, outcomes or right")
        return None

    def _save_outcomes(self, path: Path) -> None:
        assert isinstance(self._timed, TimedVariant)
        outcomes = self._timed.outcomes()
        fields = ("probabilities", "exit_block", "early", "flops")
        arrays = {name: np.stack([getattr(outcome, name) for outcome in outcomes.values()]) for name in fields}
        with temporary_room(path.parent):
            np.savez(path, allow_pickle=False, batch=np.array(list(outcomes), np.intp), **arrays)


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


def _private_stdout() -> TextIO:
    """Keep stdout for answers; what libraries print goes to stderr."""
    kept = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return kept


def _answer(answers: TextIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
