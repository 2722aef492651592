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


def read_tokens(
    tokens: torch.Tensor,
    weights: Sequence[torch.Tensor],
    *,
    class_token: bool,
    sizes: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the mean patch token and the weighted mean of each query, and the class token if there is one.

    Without local mixing the class token comes second and queries look at it too; with it, it comes last, and queries
    look at the patches alone.

    Args:
        tokens: (images, tokens, width) float32, normed.
        weights: queries (width, queries); with local mixing also kernel (width, 1, 3, 3) and bias (width,).
        class_token: whether token 0 is a class token.
        sizes: (images, tokens) float32, how many tokens each stands for, 0 for none; without local mixing.

    Returns:
        (images, rows * width) float32.
    """
    first = tokens[:, :1]
    local = len(weights) > 1
    if local:
        tokens = mix_neighbours(tokens[:, int(class_token) :], weights[1], weights[2])
    scores = (tokens @ weights[0]).transpose(1, 2)
    fixed = _fixed_shares(tokens.shape[1], class_token=class_token and not local).to(tokens)
    fixed = fixed.expand(len(tokens), -1, -1)
    if sizes is not None:
        scores = scores + sizes.log()[:, None]
        even = fixed[:, :1] * sizes[:, None]
        fixed = torch.cat([even / even.sum(dim=2, keepdim=True), fixed[:, 1:]], dim=1)
    shares = torch.cat([fixed, scores.softmax(dim=2)], dim=1)
    read = (shares @ tokens).flatten(1)
    return torch.cat([read, first.flatten(1)], dim=1) if class_token and local else read


def _fixed_shares(count: int, *, class_token: bool) -> torch.Tensor:
    """Give the weights of the tokens in the mean patch, and in the class token if it is among them, (rows, count).

    With them one GEMM reads all rows; another pass over the tokens for their mean would take a fifth of the time.
    """
    even = torch.full((1, count), 1 / (count - class_token))
    if not class_token:
        return even
    even[0, 0] = 0
    alone = torch.zeros((1, count))
    alone[0, 0] = 1
    return torch.cat([even, alone])


def mix_neighbours(patches: torch.Tensor, kernel: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Add GELU of a depthwise convolution over the grid to patches (images, patches, width)."""
    images, count, width = patches.shape
    side = patch_grid(count, class_token=False)
    grid = patches.transpose(1, 2).reshape(images, width, side, side)
    mixed = grid + F.gelu(F.conv2d(grid, kernel, bias, padding=KERNEL // 2, groups=width))
    return mixed.flatten(2).transpose(1, 2)
