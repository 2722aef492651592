"""Gives the pages of memory-mapped weights back after use, for processes that must stay small.

ONNX Runtime maps external data and reads it in place where nothing is prepacked. Pages that were read stay in the
process until memory is short; on a board with a memory limit that is too late. Dropped pages stay in the system's page
cache and are mapped again at the next use: for a ViT-B/32 block of 7 MB this takes 0.4 ms, making its session again 10.

A ViT-B/32 on one thread takes 35 ms an image and 37 MB private memory (55 in batches of eight), without the drop 30 and
122 (38 of them written), with prepacking 17 and 123; keeping only one session alive at a time 154 and 47, or 132 and 36
without prepacking. Python, numpy and ONNX Runtime are 26 MB of it, and a second thread for 14 sessions 4 MB.

ONNX Runtime does not say where it maps a file, so the process's list of mappings (Linux, ``/proc/self/maps``) is read
before and after a session is made; and before the first drop, whether a page was written to (``/proc/self/pagemap``),
since that would be lost. Where any of this is inconclusive, nothing is ever dropped.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np

T = TypeVar("T")
Span = tuple[int, int]
"""First address, and the first one after the span."""

LEAST_BYTES = 1 << 20
"""Smaller files stay mapped: little is won, and mappings by others could not be told from ours."""

_lock = threading.Lock()


class MappedPages:
    """Knows where the weights of one session are mapped; it is valid only while that session lives."""

    def __init__(self, spans: list[Span]) -> None:
        """Join adjacent spans.

        Args:
            spans: addresses, page aligned.
        """
        self.spans: list[Span] = []
        self._are_clean = False
        for start, end in sorted(spans):
            if self.spans and self.spans[-1][1] == start:
                self.spans[-1] = (self.spans[-1][0], end)
            else:
                self.spans.append((start, end))

    def drop(self) -> None:
        """Drop the pages from the process; the next read gets them again from the page cache."""
        if self.spans and not self._are_clean:
            if any(_was_written(span) for span in self.spans):
                self.spans = []
            self._are_clean = True
        for start, end in self.spans:
            _madvise()(start, end - start, mmap.MADV_DONTNEED)


def make_mapped(make: Callable[[], T], file: Path) -> tuple[T, MappedPages]:
    """Call `make` and find out where it maps a file.

    Args:
        make: makes a session.
        file: its weights.

    Returns:
        What `make` gave, and the pages; none where they cannot be told.
    """
    size = file.stat().st_size
    if sys.platform != "linux" or size < LEAST_BYTES:
        return make(), MappedPages([])
    with _lock:
        before = _spans(file)
        made = make()
        new = _without(_spans(file), before)
    strange = sum(end - start for start, end in new) > 1.5 * size + 64 * mmap.PAGESIZE
    return made, MappedPages([] if strange else new)  # too much: other code mapped the file at the same time


def _spans(file: Path) -> list[Span]:
    """Find where the file is mapped now."""
    path = os.path.realpath(file).replace("\n", "\\012")  # as Linux writes it there
    found = []
    try:
        with open("/proc/self/maps", "rb") as maps:
            lines = os.fsdecode(maps.read()).split("\n")  # no other character ends a line there
    except OSError:  # not mounted
        return []
    for line in lines:
        columns = line.split(maxsplit=5)
        if len(columns) == 6 and columns[5] == path:
            start, _, end = columns[0].partition("-")
            found.append((int(start, 16), int(end, 16)))
    return found


def _was_written(span: Span) -> bool:
    """Tell whether a page of a private mapping has been written to: it is present or swapped, but not of a file.

    Source: Linux, Documentation/admin-guide/mm/pagemap.rst (bits 63, 62 and 61).
    """
    start, end = (address // mmap.PAGESIZE * 8 for address in span)
    try:
        with open("/proc/self/pagemap", "rb") as pagemap:
            pagemap.seek(start)
            entries = np.frombuffer(pagemap.read(end - start), np.uint64)
    except OSError:
        return True
    there, of_file = entries >> np.uint64(62) != 0, entries >> np.uint64(61) & np.uint64(1) != 0
    return 8 * len(entries) < end - start or bool((there & ~of_file).any())


def _without(spans: list[Span], known: list[Span]) -> list[Span]:
    """Cut `known` out of `spans`.

    >>> _without([(0, 10), (20, 30)], [(2, 4), (20, 30)])
    [(0, 2), (4, 10)]
    """
    left = []
    for start, end in spans:
        for first, after in sorted(known):
            if first < end and after > start:
                left.append((start, first))
                start = after
        left.append((start, end))
    return [(start, end) for start, end in left if start < end]


@cache
def _madvise() -> Callable[[int, int, int], int]:
    function: Callable[[int, int, int], int] = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]  # type: ignore[attr-defined]  # of ctypes
    return function
