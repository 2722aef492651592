"""Temporary exit heads: they let the trunk feel what an exit needs, and are thrown away when it is tuned.

A head normalizes the tokens, reads a few weighted means of them (a learned query for each, softmax over the tokens),
the mean patch and the class token, and ends as all exit heads do: ``LayerNorm -> Linear -> GELU -> Linear -> unit
length``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

QUERIES = 8
"""Weighted means that a head reads."""


class ExitHead(torch.nn.Module):
    """One head, in float32."""

    def __init__(self, width: int, embed_dim: int, *, class_token: bool) -> None:
        super().__init__()
        self.class_token = class_token
        self.tokens_norm = torch.nn.LayerNorm(width)
        self.queries = torch.nn.Parameter(torch.empty(QUERIES, width))
        read = (QUERIES + 1 + class_token) * width
        self.norm = torch.nn.LayerNorm(read)
        self.fc1 = torch.nn.Linear(read, width)
        self.fc2 = torch.nn.Linear(width, embed_dim)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Embed tokens (images, tokens, width) as (images, embed_dim) float32 unit rows."""
        normed = self.tokens_norm(tokens.float())
        shares = (normed @ self.queries.T).float().softmax(dim=1)
        pooled = (shares.transpose(1, 2) @ normed).flatten(1).float()
        read = [pooled, normed[:, int(self.class_token) :].mean(dim=1)]
        read += [normed[:, 0]] if self.class_token else []
        hidden = F.gelu(self.fc1(self.norm(torch.cat(read, dim=1))))
        return F.normalize(self.fc2(hidden).float(), dim=-1)

    def start(self, generator: torch.Generator) -> None:
        """Draw initial weights as torch's layers do, from a generator of the CPU."""
        with torch.no_grad():
            self.queries.normal_(std=self.queries.shape[1] ** -0.5, generator=generator)
            for linear in (self.fc1, self.fc2):
                bound = linear.in_features**-0.5
                linear.weight.uniform_(-bound, bound, generator=generator)
                linear.bias.uniform_(-bound, bound, generator=generator)


def build_heads(exits: Sequence[int], sizes: tuple[int, int], *, class_token: bool, seed: int) -> torch.nn.ModuleList:
    """Build one head for each exit.

    Args:
        exits: blocks, from 1.
        sizes: width of the tokens and length of the embedding.
        class_token: whether token 0 is a class token.
        seed: of the initial weights.
    """
    generator = torch.Generator().manual_seed(seed)
    heads = torch.nn.ModuleList(ExitHead(*sizes, class_token=class_token) for _ in exits)
    for head in heads:
        head.start(generator)  # type: ignore[operator]
    return heads
