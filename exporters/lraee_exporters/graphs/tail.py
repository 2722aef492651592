"""Builds the tail as an ONNX part, from the last block's tokens to the embedding and the label probabilities.

embedding = normalize(projection(norm_post([CLS])))            pooling `cls`
embedding = normalize(projection(pool(norm_post(tokens))))     pooling `attention`, often without a projection
probabilities = softmax(logit_scale * embedding @ labels)                  trained with CLIP's loss
probabilities = sigmoid(logit_scale * embedding @ labels + logit_bias)     trained with SigLIP's loss

SigLIP's loss asks for each label separately whether it fits, so its probabilities need not add up to 1, and all may be
small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from onnx import TensorProto

from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import AnyLinear, TokenValue, add_class_row, add_linear, add_norm
from lraee_exporters.graphs.pooling.attention_pool import (
    POOL_INPUTS,
    PoolWeights,
    add_pool,
    float_pool,
    operators_of_pool,
    quantize_pool,
)
from lraee_exporters.int8.linear import ActivationRange, QuantizedLinear, quantize_linear
from lraee_exporters.tower import LayerNorm, Linear, Tower


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TailWeights:
    """Holds the weights of the tail, its layers in float32 or INT8."""

    norm_post: LayerNorm
    projection: AnyLinear | None
    """The projection; None when what was pooled is the embedding."""
    logit_bias: float | None
    """Bias of SigLIP's loss; with it, probabilities are sigmoids."""
    pool: PoolWeights | None = None
    """The attention pool; None when the class token is the pooled vector."""


def float_tail(tower: Tower) -> TailWeights:
    """Take the weights of the tail as it was trained."""
    projection = None
    if tower.projection is not None:
        bias = np.zeros(tower.embed_dim, np.float32) if tower.projection_bias is None else tower.projection_bias
        projection = Linear(weight=np.ascontiguousarray(tower.projection.T), bias=bias)
    pool = tower.attention_pool
    return TailWeights(
        norm_post=tower.norm_post,
        projection=projection,
        logit_bias=tower.logit_bias,
        pool=None if pool is None else float_pool(pool, tower.activation),
    )


def quantized_inputs_of_tail(tail: TailWeights) -> dict[str, str]:
    """Name the quantized values of a tail, and what they are called in its graph."""
    inputs = {} if tail.pool is None else dict(POOL_INPUTS)
    if tail.projection is not None:
        inputs |= {"norm_post": "norm_post"} if tail.pool is None else {"pooled": "pooled"}
    return inputs


def quantize_tail(tail: TailWeights, ranges: Mapping[str, ActivationRange]) -> TailWeights:
    """Round the layers of a float tail to INT8; `ranges` has one for each of `quantized_inputs_of_tail`."""
    projection = tail.projection
    if projection is not None:
        assert isinstance(projection, Linear)
        projection = quantize_linear(projection, ranges["norm_post" if tail.pool is None else "pooled"])
    pool = None if tail.pool is None else quantize_pool(tail.pool, ranges)
    return replace(tail, projection=projection, pool=pool)


@dataclass(frozen=True, slots=True)
class LabelInputs:
    """Holds the names of the two graph inputs that stand for the labels."""

    matrix: str
    """(embed_dim, labels) float32, unit columns."""
    scale: str
    """() float32, the logit scale."""


def add_label_inputs(graph: GraphBuilder, embed_dim: int) -> LabelInputs:
    """Declare the inputs `label_matrix` (embed_dim, labels) and `logit_scale` ()."""
    return LabelInputs(
        graph.input("label_matrix", TensorProto.FLOAT, [embed_dim, "labels"]),
        graph.input("logit_scale", TensorProto.FLOAT, []),
    )


def add_cosine(graph: GraphBuilder, embedding: str, labels: LabelInputs, *, embed_dim: int, prefix: str = "") -> str:
    """Add the cosines with every label, (batch, labels) float32."""
    graph.flops_per_label += 2 * embed_dim
    return graph.node("MatMul", [embedding, labels.matrix], f"{prefix}cosine")


def add_softmax(graph: GraphBuilder, cosine: str, scale: str, *, prefix: str = "") -> str:
    """Add the softmax of the scaled cosines: (batch, labels) float32, rows add up to 1."""
    logits = graph.node("Mul", [cosine, scale], f"{prefix}logits")
    return graph.node("Softmax", [logits], f"{prefix}softmax", axis=-1)


def add_sigmoid(graph: GraphBuilder, cosine: str, scale: str, logit_bias: float, *, prefix: str = "") -> str:
    """Add the sigmoid of the scaled cosines and the bias: (batch, labels) float32, each label separately.

    It is written as ``1 / (1 + exp(-x))``, because ONNX Runtime's Sigmoid is off by 5e-8. With SigLIP's bias of about
    -13, sigmoids of labels that do not fit differ by as little, and would change their order.
    """
    pair_logits = graph.node("Mul", [cosine, scale], f"{prefix}pair_logits")
    bias = graph.constant(f"{prefix}logit_bias", np.float32(logit_bias))
    biased = graph.node("Add", [pair_logits, bias], f"{prefix}biased_logits")
    growth = graph.node("Exp", [graph.node("Neg", [biased], f"{prefix}doubt")], f"{prefix}growth")
    one = graph.constant(f"{prefix}one", np.float32(1))
    return graph.node("Reciprocal", [graph.node("Add", [growth, one], f"{prefix}odds")], f"{prefix}sigmoid")


OPERATORS_OF_SIGMOID = {"Mul": 1, "Add": 2, "Neg": 1, "Exp": 1, "Reciprocal": 1}
"""Operators that ONNX Runtime runs for `add_sigmoid`."""


def add_probabilities(
    graph: GraphBuilder,
    embedding: str,
    labels: LabelInputs,
    *,
    embed_dim: int,
    logit_bias: float | None,
    prefix: str = "",
) -> str:
    """Add the probabilities of every label, by the loss that the tower was trained with: (batch, labels) float32."""
    cosine = add_cosine(graph, embedding, labels, embed_dim=embed_dim, prefix=prefix)
    if logit_bias is None:
        return add_softmax(graph, cosine, labels.scale, prefix=prefix)
    return add_sigmoid(graph, cosine, labels.scale, logit_bias, prefix=prefix)


def add_tail(graph: GraphBuilder, file: WeightFile, tokens: TokenValue, tail: TailWeights, *, prefix: str = "") -> str:
    """Add the tail up to the unit (batch, embed_dim) float32 embedding."""
    p = prefix
    if tail.pool is None:
        x = add_class_row(graph, tokens.name, f"{p}class_token")
        x = add_norm(graph, file, x, tail.norm_post, f"{p}norm_post")
    else:
        x = add_norm(graph, file, tokens.name, tail.norm_post, f"{p}norm_post")
        x = add_pool(graph, file, replace(tokens, name=x), tail.pool, prefix=p)
    if tail.projection is not None:
        x = add_linear(graph, file, x, tail.projection, f"{p}projection", rows=1)
    return graph.node("LpNormalization", [x], f"{p}unit", axis=-1, p=2)


def declare_prediction(graph: GraphBuilder, embedding: str, probabilities: str, embed_dim: int) -> None:
    """Declare the outputs `embedding` (batch, embed_dim) and `probabilities` (batch, labels)."""
    graph.output(embedding, "embedding", TensorProto.FLOAT, ["batch", embed_dim])
    graph.output(probabilities, "probabilities", TensorProto.FLOAT, ["batch", "labels"])


def build_tail(
    tail: TailWeights, *, width: int, embed_dim: int, token_count: int, observe: bool = False, sized: bool = False
) -> tuple[GraphBuilder, WeightFile]:
    """Build the part ``tail``: `tokens`, `label_matrix`, `logit_scale` to `embedding` and `probabilities`.

    Without a pool only row 0 of `tokens` (batch, rows, width) is read, so the last block may give all tokens or that
    row alone. With `observe` the values of `quantized_inputs_of_tail` are outputs too, for calibration. With `sized` a
    pool reads tokens that may stand for several: the part is called after their number, such as ``tail_120``, has the
    input `sizes` (batch, tokens, 1) float32 and reads the same ``tail.data``.
    """
    sized = sized and tail.pool is not None
    graph, file = GraphBuilder(f"tail_{token_count}" if sized else "tail"), WeightFile("tail.data")
    tokens = graph.input("tokens", TensorProto.FLOAT, ["batch", "rows", width])
    labels = add_label_inputs(graph, embed_dim)
    sizes = graph.input("sizes", TensorProto.FLOAT, ["batch", token_count, 1]) if sized else None
    embedding = add_tail(graph, file, TokenValue(tokens, token_count, sizes), tail)
    probabilities = add_probabilities(graph, embedding, labels, embed_dim=embed_dim, logit_bias=tail.logit_bias)
    declare_prediction(graph, embedding, probabilities, embed_dim)
    if observe:
        for name, value in quantized_inputs_of_tail(tail).items():
            graph.output(value, f"observed_{name}", TensorProto.FLOAT, ["batch", "channels"])
    return graph, file


def operators_of_tail(tail: TailWeights, *, sized: bool = False) -> dict[str, int]:
    """Count what ONNX Runtime must run for the tail after fusion, by operator name."""
    counts = Counter({"LayerNormalization": 1, "LpNormalization": 1, "MatMul": 1})
    counts.update({"Softmax": 1, "Mul": 1} if tail.logit_bias is None else OPERATORS_OF_SIGMOID)
    counts.update({"Gather": 1} if tail.pool is None else operators_of_pool(tail.pool, sized=sized))
    if isinstance(tail.projection, QuantizedLinear):
        counts.update({"QuantizeLinear": 1, "QGemm": 1})
    elif tail.projection is not None:
        counts.update({"Gemm": 1})
    return dict(counts)
