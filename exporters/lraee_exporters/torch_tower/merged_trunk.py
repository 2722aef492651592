"""Runs the image tower of an open_clip model with merged tokens, as the parts of a merging schedule do.

Each block is given another forward pass while a schedule is in force: attention that counts a token as often as it
stands for, then the merging of `lraee_exporters.graphs.pooling.merging`, then the MLP. Gradients flow through the means
of merged tokens; which pairs merge is decided without them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F

from lraee_exporters.graphs.pooling.merging import NEVER
from lraee_exporters.torch_tower.trunk import blocks_of, has_class_token


def merge(
    tokens: torch.Tensor, keys: torch.Tensor, sizes: torch.Tensor, merged: int, *, class_token: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Merge the most similar pairs of tokens; see `lraee_exporters.graphs.pooling.merging`.

    Args:
        tokens: (images, tokens, width).
        keys: (images, tokens, channels), summed over the heads.
        sizes: (images, tokens, 1) float32, how many tokens each stands for.
        merged: pairs that become one, at least 1.
        class_token: whether token 0 is a class token, which never merges.

    Returns:
        Merged tokens (images, tokens - merged, width) and their sizes.
    """
    with torch.no_grad():
        unit = F.normalize(keys.float(), dim=-1)
        similarity, partner = (unit[:, 0::2] @ unit[:, 1::2].transpose(1, 2)).max(dim=-1)
        if class_token:
            similarity[:, 0] += NEVER
        ranked = similarity.argsort(dim=1, descending=True, stable=True)
        goes, stays = ranked[:, :merged], ranked[:, merged:].sort(dim=1).values
        partner = partner.gather(1, goes)[..., None]
    weighted, width = tokens * sizes, tokens.shape[-1]

    def rows(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        return values[:, 0::2].gather(1, places[..., None].expand(-1, -1, values.shape[-1]))

    gone, gone_sizes = rows(weighted, goes), rows(sizes, goes)
    seconds = weighted[:, 1::2].scatter_add(1, partner.expand(-1, -1, width), gone)
    second_sizes = sizes[:, 1::2].scatter_add(1, partner, gone_sizes)
    kept = torch.cat([rows(tokens, stays), (seconds / second_sizes).to(tokens.dtype)], dim=1)
    return kept, torch.cat([rows(sizes, stays), second_sizes], dim=1)


@contextmanager
def merging(visual: Any, schedule: Sequence[int]) -> Iterator[list[torch.Tensor]]:
    """Let a tower merge tokens while this lasts.

    Args:
        visual: image tower of an open_clip model.
        schedule: pairs that become one in each block.

    Yields:
        A list that each run fills with the sizes after each block, (images, tokens, 1) float32.
    """
    after: list[torch.Tensor] = []
    blocks, class_token = blocks_of(visual), has_class_token(visual)
    tokens_first = not (hasattr(visual, "trunk") or getattr(visual.transformer, "batch_first", True))

    def forward_of(block: Any, place: int, merged: int) -> Any:
        def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
            if place == 0:
                after.clear()
            x = x.transpose(0, 1) if tokens_first else x
            sizes = after[-1] if after else x.new_ones((*x.shape[:2], 1), dtype=torch.float32)
            x, keys = _attend(block, x, sizes if after and any(schedule[:place]) else None)
            if merged:
                x, sizes = merge(x, keys, sizes, merged, class_token=class_token)
            after.append(sizes)
            x = _mlp(block, x)
            return x.transpose(0, 1) if tokens_first else x

        return forward

    for place, (block, merged) in enumerate(zip(blocks, schedule, strict=True)):
        block.forward = forward_of(block, place, merged)
    try:
        yield after
    finally:
        for block in blocks:
            del block.forward


def _attend(block: Any, x: torch.Tensor, sizes: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the residual stream after the attention, and the keys summed over the heads."""
    attention, heads = block.attn, int(block.attn.num_heads)
    if hasattr(attention, "qkv"):  # timm
        joined, out, scale = attention.qkv(block.norm1(x)), attention.proj, block.ls1
    else:
        normed = block.ln_1(x)
        joined = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
        out, scale = attention.out_proj, block.ls_1
    images, tokens, width = x.shape
    query, key, value = joined.view(images, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    mask = None if sizes is None else sizes.log().transpose(1, 2)[:, None].to(query.dtype)
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    attended = attended.transpose(1, 2).reshape(images, tokens, width)
    return x + scale(out(attended)), key.detach().sum(dim=1)


def _mlp(block: Any, x: torch.Tensor) -> torch.Tensor:
    """Add the MLP to the residual stream."""
    if hasattr(block, "norm2"):  # timm
        return x + block.ls2(block.mlp(block.norm2(x)))  # type: ignore[no-any-return]
    return x + block.ls_2(block.mlp(block.ln_2(x)))  # type: ignore[no-any-return]
