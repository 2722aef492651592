"""The tail as an ONNX part: the last block's tokens to the CLIP embedding and the label probabilities.

embedding = normalize(norm_post([CLS]) @ projection)
probabilities = softmax(logit_scale * embedding @ labels + logit_bias)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from lraee_exporters.graph import GraphBuilder, WeightFile
from lraee_exporters.layers import AnyLinear, add_class_row, add_linear, add_norm
from lraee_exporters.quantized import ActivationRange, QuantizedLinear, quantize_linear
from lraee_exporters.tower import LayerNorm, Linear, Tower


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TailWeights:
    """What the tail computes with; the projection in float32 or INT8."""

    norm_post: LayerNorm
    projection: AnyLinear
    logit_bias: float | None


def float_tail(tower: Tower) -> TailWeights:
    """The tail as it was trained."""
    projection = Linear(weight=np.ascontiguousarray(tower.projection.T), bias=np.zeros(tower.embed_dim, np.float32))
    return TailWeights(norm_post=tower.norm_post, projection=projection, logit_bias=tower.logit_bias)


def quantize_tail(tower: Tower, activation: ActivationRange) -> TailWeights:
    """The tail with an INT8 projection; `activation` is the range of its input, the normed [CLS]."""
    tail = float_tail(tower)
    assert isinstance(tail.projection, Linear)
    return TailWeights(
        norm_post=tail.norm_post,
        projection=quantize_linear(tail.projection, activation),
        logit_bias=tail.logit_bias,
    )


@dataclass(frozen=True, slots=True)
class LabelInputs:
    """Names of the two graph inputs that stand for the labels."""

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


def add_probabilities(
    graph: GraphBuilder,
    embedding: str,
    labels: LabelInputs,
    *,
    embed_dim: int,
    logit_bias: float | None,
    prefix: str = "",
) -> str:
    """Softmax of the scaled cosines with every label: (batch, labels) float32."""
    graph.flops_per_label += 2 * embed_dim
    cosine = graph.node("MatMul", [embedding, labels.matrix], f"{prefix}cosine")
    logits = graph.node("Mul", [cosine, labels.scale], f"{prefix}logits")
    if logit_bias is not None:
        bias = graph.constant(f"{prefix}logit_bias", np.float32(logit_bias))
        logits = graph.node("Add", [logits, bias], f"{prefix}biased_logits")
    return graph.node("Softmax", [logits], f"{prefix}softmax", axis=-1)


def add_tail(graph: GraphBuilder, file: WeightFile, tokens: str, tail: TailWeights, *, prefix: str = "") -> str:
    """Add the tail up to the unit (batch, embed_dim) float32 embedding."""
    p = prefix
    x = add_class_row(graph, tokens, f"{p}class_token")
    x = add_norm(graph, file, x, tail.norm_post, f"{p}norm_post")
    x = add_linear(graph, file, x, tail.projection, f"{p}projection", rows=1)
    return graph.node("LpNormalization", [x], f"{p}unit", axis=-1, p=2)


def declare_prediction(graph: GraphBuilder, embedding: str, probabilities: str, embed_dim: int) -> None:
    """Declare the outputs `embedding` (batch, embed_dim) and `probabilities` (batch, labels)."""
    graph.output(embedding, "embedding", TensorProto.FLOAT, ["batch", embed_dim])
    graph.output(probabilities, "probabilities", TensorProto.FLOAT, ["batch", "labels"])


def build_tail(
    tail: TailWeights, *, width: int, embed_dim: int, observe: bool = False
) -> tuple[GraphBuilder, WeightFile]:
    """Build the part ``tail``: `tokens`, `label_matrix`, `logit_scale` to `embedding` and `probabilities`.

    Of `tokens` (batch, rows, width) only row 0 is read, so the last block may give all tokens or that row alone. With
    `observe` the projection's input is an output too, for calibration.
    """
    graph, file = GraphBuilder("tail"), WeightFile("tail.data")
    tokens = graph.input("tokens", TensorProto.FLOAT, ["batch", "rows", width])
    labels = add_label_inputs(graph, embed_dim)
    embedding = add_tail(graph, file, tokens, tail)
    probabilities = add_probabilities(graph, embedding, labels, embed_dim=embed_dim, logit_bias=tail.logit_bias)
    declare_prediction(graph, embedding, probabilities, embed_dim)
    if observe:
        graph.output("norm_post", "observed_norm_post", TensorProto.FLOAT, ["batch", width])
    return graph, file


def operators_of_tail(tail: TailWeights) -> dict[str, int]:
    """What ONNX Runtime must run for the tail after fusion, by operator name."""
    counts = {"Gather": 1, "LayerNormalization": 1, "LpNormalization": 1, "MatMul": 1, "Mul": 1, "Softmax": 1}
    if tail.logit_bias is not None:
        counts["Add"] = 1
    if isinstance(tail.projection, QuantizedLinear):
        return counts | {"QuantizeLinear": 1, "QGemm": 1}
    return counts | {"Gemm": 1}
