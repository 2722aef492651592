"""Handles forks: sessions with a thread pool cannot be used in the child, whose pools have no threads.

A run there would wait for ever, and so would the end of the process, which joins the pools. In the child such sessions
are therefore given up without being destroyed (a few kilobytes and the pages shared with the parent), and made again
when an image reaches them. Sessions of one thread go on working, and share the parent's weights until either side ends.

A fork waits until no session is being made by another thread. It cannot wait for runs: fork while no other thread
classifies, as servers that load a model and then fork their workers do.

ONNX Runtime's official builds report their use from a separate thread, which is lost too: with 1.32, a child was seen
to hang or crash when it ends. Set ``ORT_DISABLE_TELEMETRY=1`` before Python starts wherever a process forks.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet


class Survivor(Protocol):
    """Must change in a child process after a fork."""

    def after_fork(self) -> None:
        """Is called in the child, in its only thread."""
        ...


class _Making:
    """Counts the sessions that are being made now."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.count = 0


_making = _Making()
_survivors: WeakSet[Survivor] = WeakSet()


def watch_forks(survivor: Survivor) -> None:
    """Tell `survivor` of every fork for as long as it lives."""
    _survivors.add(survivor)


@contextmanager
def no_fork_meanwhile() -> Iterator[None]:
    """Let a fork of this process wait until the block is left."""
    with _making.condition:
        _making.count += 1
    try:
        yield
    finally:
        with _making.condition:
            _making.count -= 1
            _making.condition.notify_all()


def give_up(thing: object) -> None:
    """Never destroy `thing`, not even at the end of the process."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _before() -> None:
    _making.condition.acquire()
    _making.condition.wait_for(lambda: _making.count == 0)


def _after_in_parent() -> None:
    _making.condition.release()


def _after_in_child() -> None:
    global _making
    _making = _Making()
    for survivor in list(_survivors):
        survivor.after_fork()


if hasattr(os, "register_at_fork"):  # where there are forks
    os.register_at_fork(before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
