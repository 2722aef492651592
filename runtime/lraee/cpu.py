"""What the CPU can do with 8-bit integers, as far as the runtime's settings depend on it."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path

_X86 = {"x86_64", "amd64", "i686", "i386"}


@cache
def cpu_flags() -> frozenset[str]:
    """Feature names that Linux lists for the first core; empty on other systems.

    x86 lists them as ``flags`` (``avx512_vnni``, ``amx_int8``), ARM as ``Features`` (``asimddp``, ``i8mm``).
    """
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return frozenset()
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def is_x86() -> bool:
    """Whether this is an x86 CPU."""
    return platform.machine().lower() in _X86


def int8_products_saturate() -> bool:
    """Whether uint8 x int8 products may overflow 16 bits: on x86 without VNNI or AMX.

    There ONNX Runtime needs ``session.x64quantprecision=1``, which takes a slower exact kernel. Set on a CPU with VNNI
    the same option costs 2.5 times (5.7 against 2.3 ms for a ViT-B/32 block), so it depends on the CPU.
    """
    return is_x86() and not cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8"}


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
