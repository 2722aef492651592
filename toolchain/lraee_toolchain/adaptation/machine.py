"""Choose where the trunk is tuned: CUDA, Apple's GPU or the CPU, in bfloat16 where that is fast."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from lraee.errors import ExportError
from lraee.ort.cpu import listed_flags
from lraee_toolchain.adaptation.trunk import Machine

DEVICES = ("auto", "cpu", "cuda", "mps")

FAST_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
"""Features of a CPU with instructions for products of bfloat16, as Linux names them."""


def choose_machine(device: str) -> Machine:
    """Choose a device by name; ``auto`` takes CUDA, else Apple's GPU, else the CPU.

    Raises:
        ExportError: the device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(name for name, usable in there.items() if usable)
    if not there.get(device, False):
        usable = ", ".join(name for name, is_usable in there.items() if is_usable)
        raise ExportError(f"--device is {device}, which torch {torch.__version__} cannot use here; wanted {usable}")
    fast = {"cuda": _cuda_has_bf16, "mps": lambda: False, "cpu": _cpu_has_bf16}[device]()
    return Machine(device=torch.device(device), bf16=fast)


def _cuda_has_bf16() -> bool:
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _cpu_has_bf16() -> bool:
    """Tell by the CPU's features: a measurement could decide otherwise when an interrupted run goes on."""
    path = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not path.is_file():
        return False
    return bool(listed_flags(path.read_text(encoding="utf-8", errors="replace")) & FAST_BF16)
