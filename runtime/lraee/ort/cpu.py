"""Tells what the CPU can do with 8-bit integers, as far as the runtime's settings depend on it."""

from __future__ import annotations

import ctypes
import os
import platform
from functools import cache
from pathlib import Path

_X86 = {"x86_64", "amd64", "i686", "i386"}
_ARM64 = {"aarch64", "arm64"}
_AT_HWCAP, _AT_HWCAP2 = 16, 26  # linux/auxvec.h


@cache
def cpu_flags() -> frozenset[str]:
    """Read the feature names of this CPU, as Linux has them (``avx512_vnni``, ``amx_int8``, ``asimddp``, ``i8mm``).

    All that /proc/cpuinfo lists for the first core; empty on other systems. On 64-bit ARM the flags that the kernel
    gave the process (hwcap) are read instead, for those that INT8 GEMMs depend on: /proc/cpuinfo may be another
    machine's, in a container or under qemu.
    """
    if platform.system() == "Linux" and platform.machine().lower() in _ARM64:
        return arm64_features(auxiliary_value(_AT_HWCAP), auxiliary_value(_AT_HWCAP2))
    path = Path("/proc/cpuinfo")
    return listed_flags(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else frozenset()


def listed_flags(cpuinfo: str) -> frozenset[str]:
    """Parse the features of the first core from the text of /proc/cpuinfo: x86 calls them ``flags``, ARM ``Features``.

    >>> sorted(listed_flags("processor : 0\\nflags : fpu avx2\\n"))
    ['avx2', 'fpu']
    """
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"flags", "Features"}:
            return frozenset(value.split())
    return frozenset()


def arm64_features(hwcap: int, hwcap2: int) -> frozenset[str]:
    """Name the bits that matter here, from the kernel's asm/hwcap.h for 64-bit ARM.

    >>> sorted(arm64_features(0x119FFB, 0))  # a Cortex-A76
    ['asimd', 'asimddp']
    """
    bits = {"asimd": hwcap >> 1, "asimddp": hwcap >> 20, "sve": hwcap >> 22, "i8mm": hwcap2 >> 13}
    return frozenset(name for name, bit in bits.items() if bit & 1)


def auxiliary_value(kind: int) -> int:
    """Ask for a value that the kernel gave this process at its start (getauxval), 0 if it gave none. Linux only."""
    getauxval = ctypes.CDLL(None).getauxval
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    return int(getauxval(kind))


def is_x86() -> bool:
    """Tell whether this is an x86 CPU."""
    return platform.machine().lower() in _X86


def int8_products_saturate() -> bool:
    """Tell whether sums of uint8 x int8 products may overflow 16 bits: on x86 without VNNI or AMX.

    There ONNX Runtime needs ``session.x64quantprecision=1``, which selects a slower exact kernel. On a CPU with VNNI
    the same option takes 2.5 times as long (5.7 against 2.3 ms for a ViT-B/32 block), so it depends on the CPU.
    """
    return is_x86() and not cpu_flags() & {"avx512_vnni", "avx_vnni", "amx_int8"}


def available_cores() -> int:
    """Count the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
