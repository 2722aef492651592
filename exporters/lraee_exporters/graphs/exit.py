"""Builds an exit as an ONNX part, from a block's tokens to an early answer and the gate's value for it.

The head (SSA, section 3 of arXiv 2605.26415) is ``LayerNorm(mean patch token)``, an MLP ``d -> d -> embed_dim``
with GELU, and L2 normalization; other heads read more than the mean (`HeadInput`) and go on alike. The gate is
``sigmoid(w1 * confidence + w2 * margin + w3 * SAV + b)`` with ``SAV = mean_i || z_i - mean z ||^2`` over the patch
tokens. The graph gives everything that a runtime needs, so a runtime in any language has nothing to compute.

Confidence and margin are always those of the softmax over the labels, also where the tower was trained with SigLIP's
sigmoid loss and `probabilities` are sigmoids. An exit is judged by which label is best, and sigmoids say whether a
label fits: where no label fits, or nearly all do, they are all close to 0 or to 1, and margins between them vanish. The
temperature, fitted to the softmax, does not apply to sigmoids: the head imitates the tower's embedding, for which scale
and bias were trained.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from onnx import TensorProto

from lraee.errors import TowerError
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import (
    AnyLinear,
    TokenValue,
    add_activation,
    add_class_row,
    add_linear,
    add_norm,
    add_reshape,
    in_and_out,
)
from lraee_exporters.graphs.pooling.token_pool import (
    QUERIES,
    TokenPool,
    add_token_pool,
    flops_of_pool,
    operators_of_pool,
    pooled_rows,
)
from lraee_exporters.graphs.tail import (
    OPERATORS_OF_SIGMOID,
    add_cosine,
    add_label_inputs,
    add_sigmoid,
    add_softmax,
    declare_prediction,
)
from lraee_exporters.int8.linear import QuantizedLinear
from lraee_exporters.tower import LayerNorm

HeadInput: TypeAlias = Literal["patch_mean", "cls", "both", "attention", "local"]
"""Values that a head reads: the mean patch token (SSA), the class token (CLS-EE), both side by side, or beside them
what learned queries find among all tokens, as these are or after neighbouring patches were mixed (`token_pool`)."""

POOLED_INPUTS: tuple[HeadInput, ...] = ("patch_mean", "cls", "both")
"""Those that are the same function of the tokens for every head."""

TOKEN_INPUTS: tuple[HeadInput, ...] = ("attention", "local")
"""Those whose head has weights for the tokens, so that it learns from all of them."""

HEAD_INPUTS: tuple[HeadInput, ...] = POOLED_INPUTS + TOKEN_INPUTS

GATE_FEATURES = ("confidence", "margin", "spatial_activation_variance")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExitWeights:
    """Holds the weights of a head and its gate."""

    reads: HeadInput
    norm: LayerNorm
    fc1: AnyLinear
    fc2: AnyLinear
    logit_bias: float | None
    temperature: float
    """Divisor of the logits, so that probabilities of different exits mean the same."""
    gate_weights: tuple[float, float, float]
    """For confidence, margin and spatial activation variance, in their natural units."""
    gate_bias: float
    pool: TokenPool | None = None
    """Of a head that reads tokens (`TOKEN_INPUTS`), else None."""
    bottleneck: AnyLinear | None = None
    """Stands before `fc1` where the first layer has a low rank; else None."""

    @property
    def embed_dim(self) -> int:
        """The length of the embedding."""
        return in_and_out(self.fc2)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenShape:
    """Describes the tokens that an exit reads."""

    count: int
    """Patches, and the class token if there is one; fewer where some were merged."""
    width: int
    """Channels of a token."""
    class_token: bool = True
    """Whether token 0 is a class token; without one a head can only read `patch_mean`."""
    patches: int | None = None
    """Of the image, where tokens may stand for several of them; else None."""


def build_exit(
    exit_weights: ExitWeights, shape: TokenShape, *, name: str, data: str | None = None
) -> tuple[GraphBuilder, WeightFile]:
    """Build the part of one exit.

    Inputs: `tokens` (batch, tokens, width) float32, `label_matrix` (embed_dim, labels) float32 with unit columns,
    `logit_scale` () float32. Outputs: `embedding` (batch, embed_dim), `probabilities` (batch, labels), `features`
    (batch, 3) in the order of `GATE_FEATURES`, `gate` (batch,), all float32. At least two labels are needed.

    Args:
        exit_weights: head and gate.
        shape: of the tokens. Where they may stand for several, the part has a fourth input, `sizes` (batch, tokens, 1)
            float32, and each token counts in means and variances as often as it stands for.
        name: of the part, such as ``exit_08``.
        data: name of the weight file; None calls it like the part. Exits with the same head have the same one, whatever
            the tokens.

    Raises:
        TowerError: the head reads a class token that is not there, or a grid of patches that is no square, or merged.
    """
    token_count, width, class_token = shape.count, shape.width, shape.class_token
    if exit_weights.reads == "local" and shape.patches is not None:
        raise TowerError("an exit that reads 'local' needs the grid of patches, which merging takes apart")
    if exit_weights.reads in ("cls", "both") and not class_token:
        raise TowerError(f"an exit that reads {exit_weights.reads!r} needs a class token; wanted patch_mean")
    graph, file = GraphBuilder(name), WeightFile(data or f"{name}.data")
    tokens = graph.input("tokens", TensorProto.FLOAT, ["batch", token_count, width])
    labels = add_label_inputs(graph, exit_weights.embed_dim)
    average, sizes = _add_averaging(graph, shape)
    graph.flops += 2 * 2 * token_count * width  # of the tokens, and below of their squares
    mean_3d = graph.node("MatMul", [average, tokens], "patch_mean_3d")
    if exit_weights.pool is not None:
        value = TokenValue(tokens, token_count, sizes)
        read = add_token_pool(graph, file, value, exit_weights.pool, class_token=class_token)
    else:
        mean = read = add_reshape(graph, mean_3d, (-1, width), "patch_mean")
        if exit_weights.reads != "patch_mean":
            read = add_class_row(graph, tokens, "class_token")
        if exit_weights.reads == "both":
            read = graph.node("Concat", [mean, read], "mean_and_class", axis=1)
    x = add_norm(graph, file, read, exit_weights.norm, "norm")
    if exit_weights.bottleneck is not None:
        x = add_linear(graph, file, x, exit_weights.bottleneck, "bottleneck", rows=1)
    x = add_linear(graph, file, x, exit_weights.fc1, "fc1", rows=1)
    x = add_activation(graph, x, "gelu", "activation")
    x = add_linear(graph, file, x, exit_weights.fc2, "fc2", rows=1)
    embedding = graph.node("LpNormalization", [x], "unit", axis=-1, p=2)
    scale = graph.constant("inverse_temperature", np.float32(1.0 / exit_weights.temperature))
    scale = graph.node("Mul", [labels.scale, scale], "exit_logit_scale")
    cosine = add_cosine(graph, embedding, labels, embed_dim=exit_weights.embed_dim)
    probabilities = distribution = add_softmax(graph, cosine, scale)
    if exit_weights.logit_bias is not None:
        probabilities = add_sigmoid(graph, cosine, labels.scale, exit_weights.logit_bias)
    variance = _add_variance(graph, tokens, average, mean_3d)
    features = _add_features(graph, distribution, variance)
    gate = _add_gate(graph, features, exit_weights)
    declare_prediction(graph, embedding, probabilities, exit_weights.embed_dim)
    graph.output(features, "features", TensorProto.FLOAT, ["batch", len(GATE_FEATURES)])
    graph.output(gate, "gate", TensorProto.FLOAT, ["batch"])
    return graph, file


def _add_averaging(graph: GraphBuilder, shape: TokenShape) -> tuple[str, str | None]:
    """Add the weights of the tokens in the mean patch, ([batch], 1, tokens), and the input `sizes` if there is one."""
    averaging = np.full((1, shape.count), 1.0 / (shape.patches or shape.count - shape.class_token), np.float32)
    if shape.class_token:
        averaging[0, 0] = 0.0  # [CLS] is not a patch
    average = graph.constant("averaging", averaging)
    if shape.patches is None:
        return average, None
    sizes = graph.input("sizes", TensorProto.FLOAT, ["batch", shape.count, 1])
    by_token = add_reshape(graph, sizes, (-1, 1, shape.count), "sizes_row")
    return graph.node("Mul", [by_token, average], "averaging_by_size"), sizes


def _add_variance(graph: GraphBuilder, tokens: str, average: str, mean: str) -> str:
    """Add the spatial activation variance, (batch, 1): over the channels, the sum of ``E[z^2] - E[z]^2`` over the
    patches.

    Means are GEMMs with `average`, since ONNX Runtime's reductions over tokens take five times as long.
    """
    squares = graph.node("Mul", [tokens, tokens], "squares")
    mean_of_squares = graph.node("MatMul", [average, squares], "mean_of_squares")
    square_of_mean = graph.node("Mul", [mean, mean], "square_of_mean")
    variances = graph.node("Sub", [mean_of_squares, square_of_mean], "variance_of_channels")
    channels = graph.constant("axis_channels", np.array([2], np.int64))
    return graph.node("ReduceSum", [variances, channels], "spatial_activation_variance", keepdims=0)


def _add_features(graph: GraphBuilder, distribution: str, variance: str) -> str:
    """Add confidence, top-2 margin and SAV, (batch, 3), from the two largest probabilities by one small GEMM."""
    two = graph.constant("two", np.array([2], np.int64))
    top, _ = graph.node_with_outputs(
        "TopK", [distribution, two], ["top_two", "top_two_index"], axis=-1, largest=1, sorted=1
    )
    measured = graph.node("Concat", [top, variance], "top_two_and_variance", axis=1)
    margin = np.array([[1, 1, 0], [0, -1, 0], [0, 0, 1]], np.float32)
    return graph.node("MatMul", [measured, graph.constant("margin_of_top_two", margin)], "gate_features")


def _add_gate(graph: GraphBuilder, features: str, exit_weights: ExitWeights) -> str:
    """Add ``sigmoid(features . w + b)``, (batch,)."""
    graph.flops += _flops_of_gate()
    weights = graph.constant("gate_weights", np.array(exit_weights.gate_weights, np.float32)[:, None])
    bias = graph.constant("gate_bias", np.array([exit_weights.gate_bias], np.float32))
    logit = graph.node("Gemm", [features, weights, bias], "gate_logit")
    return add_reshape(graph, graph.node("Sigmoid", [logit], "gate_column"), (-1,), "gate_value")


def _flops_of_gate() -> int:
    """Count the FLOPs of the gate and of the GEMM that makes its features."""
    return 2 * len(GATE_FEATURES) * (1 + len(GATE_FEATURES))


def rows_read(reads: HeadInput, *, class_token: bool) -> int:
    """Count the vectors of one token's width that a head reads side by side."""
    if reads in TOKEN_INPUTS:
        return pooled_rows(QUERIES, class_token=class_token)
    return 2 if reads == "both" else 1


def flops_of_exit(
    reads: HeadInput, *, token_count: int, width: int, embed_dim: int, class_token: bool, rank: int | None = None
) -> int:
    """Count the FLOPs of an exit for one image, as `build_exit` does, without those of the similarity to the labels.

    Args:
        reads: what the head reads.
        token_count: patches, and the class token if there is one.
        width: channels of a token.
        embed_dim: length of the embedding.
        class_token: whether token 0 is a class token.
        rank: of the first layer, where it goes through a bottleneck.
    """
    rows = rows_read(reads, class_token=class_token)
    flops = 2 * 2 * token_count * width  # mean and variance of the patches
    if reads in TOKEN_INPUTS:
        flops += flops_of_pool(token_count, width, class_token=class_token, local=reads == "local")
    first = rows * width * width if rank is None else (rows + 1) * width * rank
    flops += 2 * (first + width * embed_dim)
    return flops + _flops_of_gate()


def operators_of_exit(exit_weights: ExitWeights, *, class_token: bool = True, sized: bool = False) -> dict[str, int]:
    """Count what ONNX Runtime must run for an exit after fusion, by operator name."""
    counts = Counter({
        "MatMul": 4, "Reshape": 1, "LayerNormalization": 1, "Gelu": 1, "LpNormalization": 1, "Mul": 4, "Softmax": 1,
        "TopK": 1, "Concat": 1, "Sub": 1, "ReduceSum": 1, "FusedGemm": 1,
    })  # fmt: skip
    if sized:
        counts.update({"Reshape": 1, "Mul": 1})
    if exit_weights.pool is not None:
        counts.update(operators_of_pool(exit_weights.pool, class_token=class_token, sized=sized))
    else:
        counts["Reshape"] += 1
        counts["Gather"] += exit_weights.reads != "patch_mean"
        counts["Concat"] += exit_weights.reads == "both"
    if exit_weights.logit_bias is not None:
        counts.update(OPERATORS_OF_SIGMOID)
    layers = 2 + (exit_weights.bottleneck is not None)
    if isinstance(exit_weights.fc1, QuantizedLinear):
        counts.update({"QuantizeLinear": 2, "QGemm": layers})  # a bottleneck's QGemm gives levels itself
    else:
        counts["Gemm"] += layers
    return {name: count for name, count in counts.items() if count}
