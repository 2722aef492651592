"""An exit as an ONNX part: tokens of a block to an early answer and the gate's verdict on it.

The head (SSA, section 3 of arXiv 2605.26415) is ``LayerNorm(mean patch token)``, an MLP ``d -> d -> embed_dim``
with GELU, and L2 normalization. The gate is ``sigmoid(w1 * confidence + w2 * margin + w3 * SAV + b)`` with
``SAV = mean_i || z_i - mean z ||^2`` over the patch tokens. The graph gives everything that a runtime needs, so a
runtime in any language does no mathematics of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from onnx import TensorProto

from lraee_exporters.graph import GraphBuilder, WeightFile
from lraee_exporters.layers import AnyLinear, add_activation, add_linear, add_norm, in_and_out
from lraee_exporters.quantized import QuantizedLinear
from lraee_exporters.tail import add_label_inputs, add_probabilities, declare_prediction
from lraee_exporters.tower import LayerNorm

HeadInput: TypeAlias = Literal["patch_mean", "cls", "both"]
"""What a head reads: the mean patch token (SSA), the class token (CLS-EE), or both side by side."""

HEAD_INPUTS: tuple[HeadInput, ...] = ("patch_mean", "cls", "both")

GATE_FEATURES = ("confidence", "margin", "spatial_activation_variance")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExitWeights:
    """A head and its gate."""

    reads: HeadInput
    norm: LayerNorm
    fc1: AnyLinear
    fc2: AnyLinear
    logit_bias: float | None
    temperature: float
    """Divides the logits, so that probabilities of different exits mean the same."""
    gate_weights: tuple[float, float, float]
    """For confidence, margin and spatial activation variance, in their natural units."""
    gate_bias: float

    @property
    def embed_dim(self) -> int:
        """Length of the embedding."""
        return in_and_out(self.fc2)[1]


def build_exit(
    exit_weights: ExitWeights, *, number: int, token_count: int, width: int
) -> tuple[GraphBuilder, WeightFile]:
    """Build the part ``exit_NN``.

    Inputs: `tokens` (batch, tokens, width) float32, `label_matrix` (embed_dim, labels) float32 with unit columns,
    `logit_scale` () float32. Outputs: `embedding` (batch, embed_dim), `probabilities` (batch, labels), `features`
    (batch, 3) in the order of `GATE_FEATURES`, `gate` (batch,), all float32. At least two labels are needed.

    Args:
        exit_weights: head and gate.
        number: the block it sits behind, counted from 1.
        token_count: patches and the class token.
        width: channels of a token.
    """
    name = f"exit_{number:02d}"
    graph, file = GraphBuilder(name), WeightFile(f"{name}.data")
    tokens = graph.input("tokens", TensorProto.FLOAT, ["batch", token_count, width])
    labels = add_label_inputs(graph, exit_weights.embed_dim)
    axis = graph.constant("axis_tokens", np.array([1], np.int64))
    if exit_weights.reads == "patch_mean":
        patches = _slice(graph, tokens, 1, token_count, axis=1, name="patches")
        read = mean = graph.node("ReduceMean", [patches, axis], "patch_mean", keepdims=0)
    else:
        lengths = graph.constant("class_and_patches", np.array([1, token_count - 1], np.int64))
        first, patches = graph.node_with_outputs("Split", [tokens, lengths], ["class_token_3d", "patches"], axis=1)
        mean = graph.node("ReduceMean", [patches, axis], "patch_mean", keepdims=0)
        read = graph.node("Squeeze", [first, axis], "class_token")
    if exit_weights.reads == "both":
        read = graph.node("Concat", [mean, read], "mean_and_class", axis=1)
    x = add_norm(graph, file, read, exit_weights.norm, "norm")
    x = add_linear(graph, file, x, exit_weights.fc1, "fc1", rows=1)
    x = add_activation(graph, x, "gelu", "activation")
    x = add_linear(graph, file, x, exit_weights.fc2, "fc2", rows=1)
    embedding = graph.node("LpNormalization", [x], "unit", axis=-1, p=2)
    scale = graph.constant("inverse_temperature", np.float32(1.0 / exit_weights.temperature))
    labels_here = type(labels)(labels.matrix, graph.node("Mul", [labels.scale, scale], "exit_logit_scale"))
    probabilities = add_probabilities(
        graph, embedding, labels_here, embed_dim=exit_weights.embed_dim, logit_bias=exit_weights.logit_bias
    )
    features = _add_features(graph, patches, mean, probabilities, patch_count=token_count - 1)
    gate = _add_gate(graph, features, exit_weights)
    declare_prediction(graph, embedding, probabilities, exit_weights.embed_dim)
    graph.output(features, "features", TensorProto.FLOAT, ["batch", len(GATE_FEATURES)])
    graph.output(gate, "gate", TensorProto.FLOAT, ["batch"])
    return graph, file


def _slice(graph: GraphBuilder, value: str, start: int, end: int, *, axis: int, name: str) -> str:
    starts = graph.constant(f"{name}_start", np.array([start], np.int64))
    ends = graph.constant(f"{name}_end", np.array([end], np.int64))
    axes = graph.constant(f"{name}_axis", np.array([axis], np.int64))
    return graph.node("Slice", [value, starts, ends, axes], name)


def _add_features(graph: GraphBuilder, patches: str, mean: str, probabilities: str, *, patch_count: int) -> str:
    """Confidence, top-2 margin and SAV as (batch, 3).

    ``SAV = sum_i ||z_i||^2 / N - ||mean||^2`` reads the tokens once less than its definition.
    """
    two = graph.constant("two", np.array([2], np.int64))
    top, _ = graph.node_with_outputs(
        "TopK", [probabilities, two], ["top_two", "top_two_index"], axis=-1, largest=1, sorted=1
    )
    confidence = _slice(graph, top, 0, 1, axis=1, name="confidence")
    second = _slice(graph, top, 1, 2, axis=1, name="second")
    margin = graph.node("Sub", [confidence, second], "margin")
    both = graph.constant("axes_tokens_width", np.array([1, 2], np.int64))
    width = graph.constant("axis_width", np.array([1], np.int64))
    squares = graph.node("ReduceSumSquare", [patches, both], "sum_of_squares_3d", keepdims=1)
    squares = graph.node("Squeeze", [squares, width], "sum_of_squares")
    squares = graph.node(
        "Mul", [squares, graph.constant("inverse_count", np.float32(1.0 / patch_count))], "mean_square"
    )
    mean_square = graph.node("ReduceSumSquare", [mean, width], "square_of_mean", keepdims=1)
    variance = graph.node("Sub", [squares, mean_square], "spatial_activation_variance")
    return graph.node("Concat", [confidence, margin, variance], "gate_features", axis=1)


def _add_gate(graph: GraphBuilder, features: str, exit_weights: ExitWeights) -> str:
    """``sigmoid(features . w + b)`` as (batch,)."""
    graph.flops += 2 * len(GATE_FEATURES)
    weights = graph.constant("gate_weights", np.array(exit_weights.gate_weights, np.float32))
    axis = graph.constant("axis_features", np.array([1], np.int64))
    weighted = graph.node("Mul", [features, weights], "weighted_features")
    logit = graph.node("ReduceSum", [weighted, axis], "gate_sum", keepdims=0)
    logit = graph.node("Add", [logit, graph.constant("gate_bias", np.float32(exit_weights.gate_bias))], "gate_logit")
    return graph.node("Sigmoid", [logit], "gate_value")


def operators_of_exit(exit_weights: ExitWeights) -> dict[str, int]:
    """What ONNX Runtime must run for an exit after fusion, by operator name."""
    counts = {
        "Slice": 2, "ReduceMean": 1, "LayerNormalization": 1, "Gelu": 1, "LpNormalization": 1, "Mul": 4,
        "MatMul": 1, "Softmax": 1, "TopK": 1, "Sub": 2, "ReduceSumSquare": 2, "Squeeze": 1, "Concat": 1,
        "ReduceSum": 1, "Add": 1, "Sigmoid": 1,
    }  # fmt: skip
    if exit_weights.reads == "patch_mean":
        counts["Slice"] += 1
    else:
        counts |= {"Split": 1, "Squeeze": 2}
    if exit_weights.reads == "both":
        counts["Concat"] += 1
    if exit_weights.logit_bias is not None:
        counts["Add"] += 1
    if isinstance(exit_weights.fc1, QuantizedLinear):
        return counts | {"QuantizeLinear": 2, "QGemm": 2}
    return counts | {"Gemm": 2}
