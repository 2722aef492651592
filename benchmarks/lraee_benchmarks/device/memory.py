"""Read the memory of this process from /proc; elsewhere only the peak is known.

Resident memory counts memory-mapped weights, which the system may drop and other processes share; private memory does
not, and is what a second process with the same bundle would cost.
"""

from __future__ import annotations

import resource
import sys
from typing import NamedTuple

from lraee_benchmarks.device.text_files import text_of


class Memory(NamedTuple):
    """Memory of a process in bytes."""

    rss_bytes: int
    peak_rss_bytes: int
    private_bytes: int | None


def measure_memory() -> Memory:
    """Read the memory of this process now, and the largest it has been."""
    status = kilobytes_by_key("/proc/self/status")
    peak = status.get("VmHWM", _peak_from_resource())
    rollup = kilobytes_by_key("/proc/self/smaps_rollup")
    private = rollup["Private_Clean"] + rollup["Private_Dirty"] if "Private_Dirty" in rollup else None
    return Memory(rss_bytes=status.get("VmRSS", peak), peak_rss_bytes=peak, private_bytes=private)


def kilobytes_by_key(path: str) -> dict[str, int]:
    """Lines ``Key:   12 kB`` of a file of /proc, in bytes; empty where it is missing or forbidden."""
    rows = (line.split() for line in text_of(path).splitlines() if line.endswith(" kB"))
    return {row[0].removesuffix(":"): int(row[1]) * 1024 for row in rows if len(row) == 3}


def _peak_from_resource() -> int:
    """getrusage gives kilobytes on Linux and bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
