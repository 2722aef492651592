"""Builds the attention pool of SigLIP's towers, which turns all tokens into one vector.

    x = out(attention of one learned query over the tokens);  pooled = x + fc2(activation(fc1(norm(x))))

The query is the same for every image, so neither keys nor values of the tokens are computed. Of one head with query q,

    softmax(q . (K x_i + b) / sqrt(c)) = softmax((K^T q / sqrt(c)) . x_i)      since q . b shifts all tokens alike,
    sum_i p_i (V x_i + b)              = V (sum_i p_i x_i) + b                 since the p_i add up to 1:

one GEMM of the tokens with a (width, heads) matrix, one with the weights of the tokens, and the values of one mean
token for each head. This is the same function with a fiftieth of the FLOPs for ViT-B/16; it stays float. The three
layers after it work on one row for each image and are quantized as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import (
    AnyLinear,
    TokenValue,
    activation_operator,
    add_activation,
    add_linear,
    add_norm,
    add_reshape,
)
from lraee_exporters.int8.linear import ActivationRange, QuantizedLinear, quantize_linear
from lraee_exporters.tower import Activation, AttentionPool, FloatArray, LayerNorm, Linear

POOL_INPUTS = {"attention": "pool_attention", "norm": "pool_norm", "activation": "pool_activation"}
"""Quantized values, which out, fc1 and fc2 read: their names, and what they are called in the graph."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolWeights:
    """Holds the weights of the pool, the three last layers in float32 or INT8."""

    scores: FloatArray
    """(width, heads) float32: tokens times this are the logits of each head."""
    values: FloatArray
    """(heads, width, width / heads) float32."""
    out: AnyLinear
    norm: LayerNorm
    fc1: AnyLinear
    fc2: AnyLinear
    activation: Activation


def float_pool(pool: AttentionPool, activation: Activation) -> PoolWeights:
    """Take the pool as it was trained, and fold its query, keys and values."""
    width, heads = pool.query.size, pool.heads
    channels = width // heads
    query = pool.query.astype(np.float64).reshape(heads, channels)
    key = pool.key.weight.astype(np.float64).reshape(heads, channels, width)
    scores = np.einsum("hc,hcw->wh", query, key) / np.sqrt(channels)
    values = pool.value.weight.reshape(heads, channels, width).transpose(0, 2, 1)
    out_weight = pool.out.weight.astype(np.float64)
    bias = pool.out.bias + out_weight @ pool.value.bias.astype(np.float64)
    return PoolWeights(
        scores=np.ascontiguousarray(scores, np.float32),
        values=np.ascontiguousarray(values, np.float32),
        out=Linear(weight=pool.out.weight, bias=bias.astype(np.float32)),
        norm=pool.norm,
        fc1=pool.mlp.fc1,
        fc2=pool.mlp.fc2,
        activation=activation,
    )


def quantize_pool(pool: PoolWeights, ranges: Mapping[str, ActivationRange]) -> PoolWeights:
    """Round the three last layers to INT8; `ranges` has one for each of `POOL_INPUTS`."""
    assert isinstance(pool.out, Linear)
    assert isinstance(pool.fc1, Linear)
    assert isinstance(pool.fc2, Linear)
    return replace(
        pool,
        out=quantize_linear(pool.out, ranges["attention"]),
        fc1=quantize_linear(pool.fc1, ranges["norm"]),
        fc2=quantize_linear(pool.fc2, ranges["activation"]),
    )


def add_pool(graph: GraphBuilder, file: WeightFile, tokens: TokenValue, pool: PoolWeights, *, prefix: str = "") -> str:
    """Add the attention pool to `graph`.

    Args:
        graph: where the nodes go.
        file: where the weights go.
        tokens: normed; one that stands for several weighs as many.
        pool: its weights.
        prefix: put before every name, ending in "/".

    Returns:
        The pooled (batch, width) float32 value.
    """
    p = prefix
    heads, width, channels = pool.values.shape
    graph.flops += 2 * 2 * tokens.count * width * heads + 2 * width * width
    scores = graph.node(
        "MatMul", [tokens.name, graph.constant(f"{p}pool_scores", pool.scores, file)], f"{p}pool_logits"
    )
    scores = graph.node("Transpose", [scores], f"{p}pool_logits_by_head", perm=[0, 2, 1])
    if tokens.sizes is not None:
        logarithms = graph.node("Log", [tokens.sizes], f"{p}pool_log_sizes")
        logarithms = add_reshape(graph, logarithms, (-1, 1, tokens.count), f"{p}pool_log_sizes_row")
        scores = graph.node("Add", [scores, logarithms], f"{p}pool_logits_by_size")
    weights = graph.node("Softmax", [scores], f"{p}pool_weights", axis=-1)
    mean = graph.node("MatMul", [weights, tokens.name], f"{p}pool_mean")
    mean = add_reshape(graph, mean, (-1, heads, 1, width), f"{p}pool_mean_rows")
    values = graph.node("MatMul", [mean, graph.constant(f"{p}pool_values", pool.values, file)], f"{p}pool_heads")
    attended = add_reshape(graph, values, (-1, heads * channels), f"{p}pool_attention")
    x = add_linear(graph, file, attended, pool.out, f"{p}pool_out", rows=1)
    hidden = add_norm(graph, file, x, pool.norm, f"{p}pool_norm")
    hidden = add_linear(graph, file, hidden, pool.fc1, f"{p}pool_fc1", rows=1)
    hidden = add_activation(graph, hidden, pool.activation, f"{p}pool_activation")
    update = add_linear(graph, file, hidden, pool.fc2, f"{p}pool_fc2", rows=1)
    return graph.node("Add", [x, update], f"{p}pooled")


def operators_of_pool(pool: PoolWeights, *, sized: bool = False) -> dict[str, int]:
    """Count what ONNX Runtime must run for the pool after fusion, by operator name."""
    counts = {"MatMul": 3, "Transpose": 1, "Softmax": 1, "Reshape": 2, "LayerNormalization": 1, "Add": 1}
    counts[activation_operator(pool.activation)] = 1
    if sized:
        counts |= {"Log": 1, "Reshape": 3, "Add": 2}
    if isinstance(pool.out, QuantizedLinear):
        return counts | {"QGemm": 3, "QuantizeLinear": 3}
    return counts | {"Gemm": 3}
