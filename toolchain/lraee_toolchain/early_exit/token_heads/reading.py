"""Computes what a head reads of normed tokens, as its ONNX part does, in training and for cached answers alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from lraee_exporters.graphs.pooling.token_pool import KERNEL, TokenPool, patch_grid


def pool_tensors(pool: TokenPool) -> list[torch.Tensor]:
    """Give a pool's weights as `read_tokens` takes them."""
    mixing = [] if pool.mixing is None else [pool.mixing.kernel, pool.mixing.bias]
    return [torch.from_numpy(array) for array in (pool.queries, *mixing)]


def read_tokens(tokens: torch.Tensor, weights: Sequence[torch.Tensor], *, class_token: bool) -> torch.Tensor:
    """Compute the mean patch token and the weighted mean of each query, and the class token if there is one.

    Without local mixing the class token comes second and queries look at it too; with it, it comes last, and queries
    look at the patches alone.

    Args:
        tokens: (images, tokens, width) float32, normed.
        weights: queries (width, queries); with local mixing also kernel (width, 1, 3, 3) and bias (width,).
        class_token: whether token 0 is a class token.

    Returns:
        (images, rows * width) float32.
    """
    first = tokens[:, :1]
    patches = tokens[:, int(class_token) :]
    if len(weights) > 1:
        tokens = patches = mix_neighbours(patches, weights[1], weights[2])
    shares = (tokens @ weights[0]).softmax(dim=1).transpose(1, 2)
    rows = [patches.mean(dim=1, keepdim=True), shares @ tokens]
    if class_token:
        rows.insert(1 if len(weights) == 1 else 2, first)
    return torch.cat(rows, dim=1).flatten(1)


def mix_neighbours(patches: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Add GELU of a depthwise convolution over the grid to patches (images, patches, width)."""
    images, count, width = patches.shape
    side = patch_grid(count, class_token=False)
    grid = patches.transpose(1, 2).reshape(images, width, side, side)
    mixed = grid + F.gelu(F.conv2d(grid, kernel, bias, padding=KERNEL // 2, groups=width))
    return mixed.flatten(2).transpose(1, 2)
