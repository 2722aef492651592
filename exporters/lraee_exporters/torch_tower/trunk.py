"""Run the image tower of an open_clip model and see its tokens after each block, also while it learns.

It runs on CUDA, Apple's GPU or the CPU, in bfloat16 where that is fast.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lraee.errors import ExportError
from lraee.ort.cpu import listed_flags

DEVICES = ("auto", "cpu", "cuda", "mps")

FAST_BF16 = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
"""Features of a CPU with instructions for products of bfloat16, as Linux names them."""


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a tower says of a batch at its exits and at its end."""

    tokens: list[torch.Tensor]
    """(images, tokens, width) after each block that was asked for."""
    embedding: torch.Tensor
    """(images, embed_dim) float32, unit rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where and how exactly the tower computes."""

    device: torch.device
    bf16: bool
    """Whether matrix products take bfloat16; sums, weights and the optimizer stay float32."""

    @property
    def words(self) -> str:
        """Name both, as in ``cpu, bf16``."""
        return f"{self.device.type}, {'bf16' if self.bf16 else 'float32'}"

    def products(self) -> AbstractContextManager[Any]:
        """Compute matrix products in this machine's precision."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else nullcontext()

    def attention(self) -> AbstractContextManager[Any]:
        """Choose the kernel of attention: on a CPU the flash kernel's backward takes ten times as long as this one."""
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()


def blocks_of(visual: Any) -> Sequence[torch.nn.Module]:
    """List the residual blocks of open_clip's own or timm's vision transformer."""
    blocks: Sequence[torch.nn.Module] = (
        visual.trunk.blocks if hasattr(visual, "trunk") else visual.transformer.resblocks
    )
    return blocks


def has_class_token(visual: Any) -> bool:
    """Tell whether token 0 is a class token."""
    return bool(visual.trunk.has_class_token) if hasattr(visual, "trunk") else True


def run_tower(visual: Any, images: torch.Tensor, exits: Sequence[int], machine: Machine) -> Answers:
    """Run a tower to its end.

    Args:
        visual: image tower of an open_clip model.
        images: (images, 3, size, size) float32, normalized.
        exits: blocks, from 1, whose tokens are wanted, in rising order.
        machine: where `visual` is.
    """
    batch_first = hasattr(visual, "trunk") or getattr(visual.transformer, "batch_first", True)
    tokens: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        tokens.append(output if batch_first else output.transpose(0, 1))

    blocks = blocks_of(visual)
    hooks = [blocks[block - 1].register_forward_hook(keep) for block in exits]
    try:
        with machine.attention(), machine.products():
            embedding = visual(images)
    finally:
        for hook in hooks:
            hook.remove()
    return Answers(tokens, F.normalize(embedding.float(), dim=-1))


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
