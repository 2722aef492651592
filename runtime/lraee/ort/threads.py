"""Chooses how many threads run one operator, by default and where the system allows fewer than were asked for.

Each session starts one thread less than run its operators, since the caller is one of them: a model of 19 parts at 8
threads starts 133. Where the system refuses a session's first thread, ONNX Runtime (1.25 to 1.32) raises;
where it refuses a later one, the session is never done. So threads are counted before they are started: for a whole
model when it is loaded, and again for each session when it is made, since others may have taken the room.
"""

from __future__ import annotations

import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lraee.errors import ThreadsWarning
from lraee.ort.cpu import available_cores
from lraee.ort.limits import ROOT, TaskLimit, cpu_quota, task_limit

SPARE = 4
"""Tasks left to the rest of the process, such as the thread that preloads."""

PAYING_FLOPS = 200_000_000
"""Work of a block on one image from which more than one thread pays. A block of ViT-B/32 has 715 million, one of the
reference 21 million; in batches of four, 84 million, the reference takes as long at 2 threads as at 1."""

_making = threading.Lock()


def usable_cores(root: Path = ROOT) -> int:
    """Count the cores that this process may use all the time: a quota of 1.5 cores has time for one.

    A second thread would use the quota up before its period ends, 0.1 s as a rule, and all threads would then be
    stopped until the next one begins. At least 1.
    """
    quota = cpu_quota(root)
    cores = available_cores()
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def default_threads(block_flops: int | None = None, root: Path = ROOT) -> int:
    """Choose the threads where none are asked for: one for each of the usable cores, or 1 where blocks are small.

    A thread that sleeps between two operators takes some 20 microseconds to come back, more than it saves in a block
    of a few hundred. On two cores of an EPYC with AVX512-VNNI the reference takes 1.77 ms at 1 thread and 2.77 at 2,
    and next to a process that never rests 1.78 and 2.99. A ViT-B/32 takes 29.5 ms at 1 thread and 20.1 at 2, and next
    to that process 29.4 and 29.2: one thread for each core costs nothing where blocks are large. Threads that spin
    would take 36.0 ms there. Medians at batch 1 of ``python benchmarks/experiments/threads.py BUNDLE``.

    Environment variables, such as ``OMP_NUM_THREADS`` or ``PYTHON_CPU_COUNT``, are not followed.

    Args:
        block_flops: of the largest block, for one image; None for work that is known to be large.
        root: folder that holds ``proc`` and ``sys``.
    """
    return usable_cores(root) if block_flops is None or block_flops >= PAYING_FLOPS else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreadChoice:
    """Says how many threads a model gets where none are asked for, and why."""

    threads: int
    """Threads that run one operator, the caller included."""
    reason: str
    """Why there are not more, or that each core has one."""


def choose_threads(block_flops: int | None, *, sessions: int, root: Path = ROOT) -> ThreadChoice:
    """Say how many threads a model would get if it was loaded now, and why; nothing is started and nothing warned.

    Args:
        block_flops: as in `default_threads`.
        sessions: of the model.
        root: folder that holds ``proc`` and ``sys``.
    """
    threads, cores, quota = default_threads(block_flops, root), available_cores(), cpu_quota(root)
    limit = task_limit(root, wanted=(threads - 1) * sessions + SPARE)
    if limit is not None and (fitting := _fitting(limit, sessions, SPARE)) < threads:
        reason = f"{limit.name} allows {limit.most} tasks, of which {limit.used} are used"
        return ThreadChoice(threads=fitting, reason=f"{reason}; {sessions} sessions at {threads} threads do not fit")
    if block_flops is not None and block_flops < PAYING_FLOPS:
        small = f"the largest block has {block_flops / 1e6:.0f} MFLOPs an image"
        return ThreadChoice(threads=threads, reason=f"{small}, and more threads pay from {PAYING_FLOPS / 1e6:.0f} on")
    if quota is not None and threads < cores:
        return ThreadChoice(threads=threads, reason=f"the quota of {quota:g} cores has time for no more")
    return ThreadChoice(threads=threads, reason=f"one for each of {cores} cores" if cores > 1 else "there is one core")


def _fitting(limit: TaskLimit, sessions: int, taken: int) -> int:
    """Count the threads of each session for which a limit leaves room, after tasks that are taken."""
    return 1 + max(limit.room - taken, 0) // sessions


def fitting_threads(threads: int, *, sessions: int, promised: int = 0, spare: int = SPARE, root: Path = ROOT) -> int:
    """Reduce the threads asked for to those that the system leaves room for, with one warning.

    Args:
        threads: that are to run each session, the caller included.
        sessions: that will start ``threads - 1`` each.
        promised: threads that other models of this process have yet to start.
        spare: tasks to leave.
        root: folder that holds ``proc`` and ``sys``.
    """
    wanted = (threads - 1) * sessions
    limit = task_limit(root, wanted=wanted + promised + spare) if wanted else None
    if limit is None:
        return threads
    fitting = _fitting(limit, sessions, promised + spare)
    each = (
        f"a session at {threads} threads starts" if sessions == 1 else f"{sessions} sessions at {threads} threads start"
    )
    others = f" and {promised} are promised to other models" if promised else ""
    fewer = "1 thread" if fitting == 1 else f"{fitting} threads"
    warnings.warn(
        f"{each} {wanted} threads, but {limit.name} allows {limit.most}, of which {limit.used} are used{others}: "
        f"going on with {fewer}. Ask for {fewer}, or raise the limit",
        ThreadsWarning,
        stacklevel=2,
    )
    return fitting


@contextmanager
def room_for(threads: int, *, sessions: int) -> Iterator[int]:
    """Hold room for the threads of a session while it is made, and give how many threads it may have.

    Sessions are made one after the other where room is scarce, at the same time elsewhere.

    Args:
        threads: that are to run it.
        sessions: that are to be made, this one and others like it, which share what room there is.
    """
    if threads == 1 or task_limit(wanted=threads * (sessions + 1)) is None:
        yield threads
        return
    with _making:
        yield fitting_threads(threads, sessions=sessions, spare=0)
