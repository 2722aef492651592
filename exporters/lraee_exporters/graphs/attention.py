"""Builds multi-head attention of ONNX's plain operators, which ONNX Runtime runs as fast as its own `Attention`.

    attended = softmax(query . key / sqrt(channels)) . value        for each head, over its `channels`

`Attention` is an operator of opset 23 and draws every other operator of a graph up to that set, which runtimes on
boards, phones and browsers do not read. `MatMul` and `Softmax` are in all sets, but heads must lie before tokens for
them, and to move q, k, v and the result there and back copies four tensors of floats.

Blocks of the image tower avoid three copies: their q, k and v come with the token as the first axis, before the batch.
ONNX Runtime folds the transposition from there into its GEMM (`FusedMatMul` with ``transBatchA``), which strides over
the tensor where it lies. The tokens are moved to the front in the quantized input of the three layers, and the result
is moved back once it is quantized for the next layer: levels are a quarter as many bytes as floats.
"""

from __future__ import annotations

import numpy as np

from lraee_exporters.graphs.builder import GraphBuilder

TOKENS_FIRST = (1, 0, 2)
"""(batch, tokens, width) to (tokens, batch, width)."""

HEADS_LAST = (0, 2, 1, 3)
"""(batch, heads, tokens, channels) to (batch, tokens, heads, channels), and back."""

_HEADS_FIRST = (1, 2, 0, 3)
_HEADS_FIRST_TRANSPOSED = (1, 2, 3, 0)


def add_attention(
    graph: GraphBuilder, projected: tuple[str, str, str], *, channels: int, name: str, mask: str | None = None
) -> str:
    """Attend from every row to every token.

    Args:
        graph: where the nodes go.
        projected: query (rows, batch, heads, channels), key and value (tokens, batch, heads, channels), float32.
        channels: of one head.
        name: prefix of the values made here.
        mask: added before the softmax, as in `add_weights`.

    Returns:
        The (batch, heads, rows, channels) float32 value.
    """
    query, key, value = projected
    q = add_transpose(graph, query, _HEADS_FIRST, f"{name}_query_heads")
    k = add_transpose(graph, key, _HEADS_FIRST_TRANSPOSED, f"{name}_key_heads")
    v = add_transpose(graph, value, _HEADS_FIRST, f"{name}_value_heads")
    return graph.node("MatMul", [add_weights(graph, q, k, channels=channels, name=name, mask=mask), v], name)


def add_weights(graph: GraphBuilder, query: str, key: str, *, channels: int, name: str, mask: str | None = None) -> str:
    """Add the softmax of the scaled GEMM of (..., rows, channels) and (..., channels, tokens): (..., rows, tokens).

    Args:
        graph: where the nodes go.
        query: float32.
        key: float32, transposed.
        channels: of one head; ONNX Runtime folds the scale into the GEMM.
        name: prefix of the values made here.
        mask: (rows, tokens) float32 that is added before the softmax, or one that ONNX spreads to the logits' shape.
    """
    scale = graph.constant(f"attention_scale_{channels}", np.float32(channels**-0.5))
    logits = graph.node("MatMul", [query, key], f"{name}_products")
    logits = graph.node("Mul", [logits, scale], f"{name}_logits")
    if mask is not None:
        logits = graph.node("Add", [logits, mask], f"{name}_masked")
    return graph.node("Softmax", [logits], f"{name}_weights", axis=-1)


def add_transpose(graph: GraphBuilder, value: str, order: tuple[int, ...], name: str) -> str:
    """Add a transposition of the axes of `value`."""
    return graph.node("Transpose", [value], name, perm=list(order))
