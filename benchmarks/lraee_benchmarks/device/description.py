"""Describe what the numbers were measured on, from /proc and /sys; elsewhere from `platform`."""

from __future__ import annotations

import os
import platform

import numpy as np
import onnxruntime as ort

import lraee
from lraee.ort.cpu import available_cores, cpu_flags
from lraee_benchmarks.device.memory import kilobytes_by_key
from lraee_benchmarks.device.text_files import text_of
from lraee_benchmarks.results.conditions import Device

_INT8_FEATURES = {
    "avx_vnni": "AVX-VNNI",
    "avx512_vnni": "AVX512-VNNI",
    "amx_int8": "AMX-INT8",
    "asimddp": "dotprod",
    "i8mm": "i8mm",
}
"""The kernel's name of a CPU feature that speeds up 8-bit GEMMs, and what people call it."""


def describe_device() -> Device:
    """Describe this machine before the measurement; load and temperature are those of now."""
    return Device(
        model=device_model(text_of("/proc/device-tree/model"), text_of("/proc/cpuinfo")),
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        cores=available_cores(),
        memory_bytes=kilobytes_by_key("/proc/meminfo").get("MemTotal"),
        int8_features=int8_features(cpu_flags()),
        governor=text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None,
        load_average=load_average(),
        celsius_before=temperature(),
        celsius_after=None,
        python=platform.python_version(),
        numpy=np.__version__,
        onnxruntime=ort.__version__,
        lraee=lraee.__version__,
    )


def device_model(device_tree: str, cpuinfo: str) -> str:
    """Name the board (a Raspberry Pi has a name), else of the CPU, else of the architecture.

    >>> device_model("Raspberry Pi 5 Model B Rev 1.0\\0", "")
    'Raspberry Pi 5 Model B Rev 1.0'
    >>> device_model("", "processor\\t: 0\\nmodel name\\t: Some CPU @ 2.0 GHz\\n")
    'Some CPU @ 2.0 GHz'
    """
    if board := device_tree.strip("\0 \n"):
        return board
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model"} and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def int8_features(flags: frozenset[str]) -> tuple[str, ...]:
    """Name those of VNNI, AMX, dotprod and i8mm that are among the kernel's flags.

    >>> int8_features(frozenset({"fpu", "asimddp"}))
    ('dotprod',)
    """
    return tuple(name for flag, name in _INT8_FEATURES.items() if flag in flags)


def temperature() -> float | None:
    """Read the temperature of the first thermal zone in degrees Celsius; None where there is none."""
    text = text_of("/sys/class/thermal/thermal_zone0/temp")
    return int(text) / 1000 if text.lstrip("-").isdigit() else None


def load_average() -> float | None:
    """Count the runnable processes over the last minute; None where the system does not count them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None
