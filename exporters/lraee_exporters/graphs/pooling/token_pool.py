"""Builds the attention pooling of exit heads: what a head reads of all tokens of a block.

    n_i = LayerNorm(z_i), without gain and bias;   weights = softmax over i of (n_i . q);   read = sum_i weights_i n_i

for each of a few learned queries q, side by side with the mean patch and the class token. A query is the same for every
image, so its key projection is folded into it: a score costs one dot product for each token, and nothing is projected.
A score needs no bias, which the softmax over tokens ignores.

The mean patch token and the class token are two more columns of the same two GEMMs: their scores are constants that
make the softmax even over the patches, or put all weight on the class token. That is faster than another GEMM, Gather
and Concat.

The local variant first adds ``GELU(depthwise convolution of 3 x 3)`` to the patches where they lie in the grid, in the
manner of the local perception head of LGViT (arXiv 2308.00255): shallow blocks have hardly mixed neighbours yet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lraee.errors import TowerError
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import TokenValue, add_reshape
from lraee_exporters.tower import FloatArray

QUERIES = 8
"""Learned queries of a head."""

TOKEN_EPSILON = 1e-5
"""Of the LayerNorm of each token."""

KERNEL = 3
"""Side of the convolution over the patch grid, in patches."""

CLOSED = -1e4
"""Score of a token that a query must not read: its weight is exactly 0 in float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LocalMixing:
    """Holds a depthwise convolution over the patch grid."""

    kernel: FloatArray
    """(width, 1, 3, 3) float32."""
    bias: FloatArray
    """(width,) float32."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TokenPool:
    """Holds the weights of the pooling; they stay float32."""

    queries: FloatArray
    """(width, queries) float32: normed tokens times this are the scores."""
    mixing: LocalMixing | None = None
    """What mixes neighbouring patches before the pooling, or None."""

    @property
    def width(self) -> int:
        """The channels of a token."""
        return int(self.queries.shape[0])


def patch_grid(token_count: int, *, class_token: bool) -> int:
    """Give the patches along one side of the grid.

    Raises:
        TowerError: the patches form no square.
    """
    patches = token_count - class_token
    side = math.isqrt(patches)
    if side * side != patches:
        raise TowerError(f"the local head needs patches in a square, this tower has {patches}; read attention")
    return side


def pooled_rows(queries: int, *, class_token: bool) -> int:
    """Count the vectors of one token's width that a head reads: mean, class token, one for each query."""
    return queries + 1 + class_token


def flops_of_pool(token_count: int, width: int, *, queries: int = QUERIES, class_token: bool, local: bool) -> int:
    """Count the FLOPs of the pooling for one image, multiply-add = 2."""
    patches = token_count - class_token
    if local:
        return 2 * patches * width * (KERNEL * KERNEL + 2 * (queries + 1))
    return 2 * 2 * token_count * width * pooled_rows(queries, class_token=class_token)


def add_token_pool(
    graph: GraphBuilder, file: WeightFile, tokens: TokenValue, pool: TokenPool, *, class_token: bool
) -> str:
    """Add the pooling to `graph`.

    Args:
        graph: where the nodes go.
        file: where the weights go.
        tokens: that it reads; one that stands for several weighs as many in every mean, but not with local mixing.
        pool: its weights.
        class_token: whether token 0 is a class token.

    Returns:
        (batch, rows * width) float32: the mean patch token, the class token if there is one, and one weighted mean for
        each query; with local mixing the class token comes last.

    Raises:
        TowerError: the patches of a pool with local mixing form no square.
    """
    width, queries = pool.queries.shape
    token_count = tokens.count
    graph.flops += flops_of_pool(
        token_count, width, queries=queries, class_token=class_token, local=pool.mixing is not None
    )
    gain = graph.constant("token_gain", np.ones(width, np.float32), file)
    normed = graph.node("LayerNormalization", [tokens.name, gain], "normed_tokens", axis=-1, epsilon=TOKEN_EPSILON)
    if pool.mixing is not None:
        side = patch_grid(token_count, class_token=class_token)
        return _add_local(graph, file, normed, pool, side=side, class_token=class_token)
    fixed = 1 + class_token
    by_channel = graph.node("Transpose", [normed], "normed_channels", perm=[0, 2, 1])  # fused into the GEMM
    scores = _add_scores(graph, file, by_channel, pool, fixed=fixed)
    if class_token:
        constant = np.zeros((fixed + queries, token_count), np.float32)
        constant[0, 0] = constant[1, 1:] = CLOSED
        closed = graph.constant("fixed_scores", constant)  # in the graph: weights do not depend on the tokens
        scores = graph.node("Add", [scores, closed], "all_scores")
    if tokens.sizes is not None:
        row = add_reshape(graph, graph.node("Log", [tokens.sizes], "log_sizes"), (-1, 1, token_count), "log_sizes_row")
        scores = graph.node("Add", [scores, row], "scores_by_size")
    weights = graph.node("Softmax", [scores], "token_weights", axis=-1)
    means = graph.node("MatMul", [weights, normed], "pooled_rows")
    return add_reshape(graph, means, (-1, (fixed + queries) * width), "pooled")


def _add_scores(graph: GraphBuilder, file: WeightFile, by_channel: str, pool: TokenPool, *, fixed: int) -> str:
    """Add the scores (batch, fixed + queries, tokens) of tokens (batch, width, tokens); the first `fixed` are 0."""
    rows = np.concatenate([np.zeros((fixed, pool.width), np.float32), pool.queries.T])
    return graph.node("MatMul", [graph.constant("queries", rows, file), by_channel], "token_scores")


def _add_local(
    graph: GraphBuilder, file: WeightFile, normed: str, pool: TokenPool, *, side: int, class_token: bool
) -> str:
    """Add convolution and pooling of the patches, which stay channels first, as the convolution leaves them."""
    mixing, width, patches = pool.mixing, pool.width, side * side
    assert mixing is not None
    value = normed
    if class_token:
        sizes = graph.constant("class_and_patches", np.array([1, patches], np.int64))
        first, value = graph.node_with_outputs("Split", [normed, sizes], ["class_row", "patches"], axis=1)
    value = graph.node("Transpose", [value], "patch_channels", perm=[0, 2, 1])
    grid = add_reshape(graph, value, (-1, width, side, side), "patch_grid")
    weights = [graph.constant("mixing_kernel", mixing.kernel, file), graph.constant("mixing_bias", mixing.bias, file)]
    border, kernel = KERNEL // 2, [KERNEL, KERNEL]
    mixed = graph.node("Conv", [grid, *weights], "convolved", group=width, kernel_shape=kernel, pads=[border] * 4)
    mixed = graph.node("Add", [grid, graph.node("Gelu", [mixed], "neighbours")], "mixed_grid")
    mixed = add_reshape(graph, mixed, (-1, width, patches), "mixed_patches")
    shares = graph.node("Softmax", [_add_scores(graph, file, mixed, pool, fixed=1)], "token_weights", axis=-1)
    by_patch = graph.node("Transpose", [mixed], "mixed_by_patch", perm=[0, 2, 1])  # fused into the GEMM
    means = graph.node("MatMul", [shares, by_patch], "pooled_rows")
    pooled = add_reshape(graph, means, (-1, (1 + pool.queries.shape[1]) * width), "pooled_patches")
    if not class_token:
        return pooled
    return graph.node("Concat", [pooled, add_reshape(graph, first, (-1, width), "class_token")], "pooled", axis=1)


def operators_of_pool(pool: TokenPool, *, class_token: bool, sized: bool = False) -> dict[str, int]:
    """Count what ONNX Runtime must run for the pooling after fusion, by operator name."""
    counts = {"LayerNormalization": 1, "FusedMatMul": 1, "MatMul": 1, "Softmax": 1, "Reshape": 1}
    if pool.mixing is not None:
        counts |= {"Transpose": 1, "Reshape": 3, "Conv": 1, "Gelu": 1, "Add": 1}
        return counts | ({"Split": 1, "Reshape": 4, "Concat": 1} if class_token else {})
    counts |= {"Log": 1, "Reshape": 2} if sized else {}
    return counts | ({"Add": class_token + sized} if class_token or sized else {})
