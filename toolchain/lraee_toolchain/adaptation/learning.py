"""What learns and how fast: parameter groups with lower rates for lower blocks, warm-up and cosine."""

from __future__ import annotations

import math
from typing import Any

import torch

from lraee_exporters.torch_tower.trunk import blocks_of
from lraee_toolchain.adaptation.low_rank import add_low_rank
from lraee_toolchain.config.learning import Adaptation

WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""

LEAST_RATE = 0.02
"""Of the peak, at the end of the cosine."""

BETAS = (0.9, 0.98)

FULL_RATE_STEPS = 200
"""Steps with the trunk from which on its rates are those that were asked for; fewer lower them in proportion.

AdamW moves each weight by its rate in every step, also where the gradient is noise, and few steps cannot anneal that.
"""


def trunk_groups(visual: Any, options: Adaptation, seed: int) -> list[dict[str, Any]]:
    """Freeze the stem and the lowest blocks, and group what learns in the rest.

    Args:
        visual: image tower; with low rank its blocks are changed in place.
        options: rates, decay and rank.
        seed: of low-rank updates.

    Returns:
        Groups of AdamW, each with ``base``, its peak learning rate. With low rank only the blocks learn.
    """
    visual.requires_grad_(False)
    generator = torch.Generator().manual_seed(seed)
    blocks = blocks_of(visual)
    groups: list[dict[str, Any]] = []
    for place in range(int(options.frozen * len(blocks)), len(blocks)):
        rate = options.learning_rate * options.layer_decay ** (len(blocks) - 1 - place)
        if options.rank is None:
            learned = list(blocks[place].parameters())
        else:
            learned = add_low_rank(blocks[place], rank=options.rank, generator=generator)
        groups += _groups(learned, rate, options.weight_decay if options.rank is None else 0.0)
    if options.rank is None:
        groups += _groups(_after_blocks(visual), options.learning_rate, options.weight_decay)
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    return groups


def head_groups(heads: torch.nn.ModuleList, options: Adaptation) -> list[dict[str, Any]]:
    """Group the exit heads' parameters."""
    return _groups(list(heads.parameters()), options.head_learning_rate, options.weight_decay)


def _after_blocks(visual: Any) -> list[torch.nn.Parameter]:
    """List the parameters that pool and project the tokens after the last block."""
    if not hasattr(visual, "trunk"):
        return [*visual.ln_post.parameters(), visual.proj]
    trunk = visual.trunk
    parts = [trunk.norm, trunk.head, visual.head, *([] if trunk.attn_pool is None else [trunk.attn_pool])]
    return [parameter for part in parts for parameter in part.parameters()]


def _groups(parameters: list[torch.nn.Parameter], rate: float, decay: float) -> list[dict[str, Any]]:
    """Divide parameters into those that decay, the matrices, and those that do not."""
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [(matrices, decay), (others, 0.0)]
    return [{"params": found, "base": rate, "weight_decay": decay} for found, decay in groups if found]


def few_steps_factor(steps: int) -> float:
    """Give the share of the trunk's rates that a tuning of so few steps may take.

    >>> few_steps_factor(10), few_steps_factor(1000)
    (0.05, 1.0)
    """
    return min(1.0, steps / FULL_RATE_STEPS)


def rate_factor(step: int, steps: int) -> float:
    """Give the share of the peak rate at a step (from 0) of all steps: a linear rise, then a cosine.

    >>> [round(rate_factor(step, 100), 3) for step in (0, 4, 50, 99)]
    [0.2, 1.0, 0.541, 0.02]
    """
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return (step + 1) / rise
    return max(LEAST_RATE, 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))))
