"""Low-rank updates of a block's matrices (LoRA, arXiv 2106.09685), learned in place of the weights and merged.

Differs from layers wrapped around others: the update is a parametrization of the weight itself, so that attention,
which hands its weights to one kernel, needs no other code.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.utils import parametrize


class LowRank(torch.nn.Module):
    """Adds ``up @ down`` to a weight of (parts * out, in), one product for each part (query, key and value are one)."""

    def __init__(self, weight: torch.Tensor, *, rank: int, parts: int, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.shape
        down = torch.empty(parts, rank, columns).normal_(std=columns**-0.5, generator=generator)
        self.down = torch.nn.Parameter(down.to(weight.device))
        self.up = torch.nn.Parameter(torch.zeros(parts, rows // parts, rank, device=weight.device))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """Give the changed weight; at first it is the weight itself."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + (self.up @ self.down).flatten(0, 1)


def _matrices(block: torch.nn.Module) -> list[tuple[torch.nn.Module, str, int]]:
    """List a block's matrices: module, name of the parameter, parts that are stacked in it."""
    found = []
    for module in block.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 2:
                parts = 3 if name == "in_proj_weight" or parameter.shape[0] == 3 * parameter.shape[1] else 1
                found.append((module, name, parts))
    return found


def add_low_rank(block: torch.nn.Module, *, rank: int, generator: torch.Generator) -> list[torch.nn.Parameter]:
    """Give each matrix of a block a low-rank update and freeze all else; returns what learns."""
    learned: list[torch.nn.Parameter] = []
    block.requires_grad_(False)
    for module, name, parts in _matrices(block):
        weight = getattr(module, name)
        update = LowRank(weight, rank=min(rank, *weight.shape), parts=parts, generator=generator)
        parametrize.register_parametrization(module, name, update)
        learned += [update.down, update.up]
    return learned


def merge_low_rank(block: torch.nn.Module) -> None:
    """Make each changed weight an ordinary one of the same value."""
    for module in list(block.modules()):
        if parametrize.is_parametrized(module):
            names: Any = module.parametrizations
            for name in list(names):
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
