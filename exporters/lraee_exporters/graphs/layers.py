"""Builds the few layers that every part is made of, each in the form that ONNX Runtime fuses.

A linear layer is a 2-D `Gemm` between QuantizeLinear/DequantizeLinear pairs, without a QuantizeLinear after it:
ONNX Runtime turns that into one `QGemm` with float output. Everything else stays float.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.int8.linear import ALL_LEVELS, QuantizedLinear
from lraee_exporters.tower import Activation, LayerNorm, Linear

AnyLinear: TypeAlias = Linear | QuantizedLinear
"""A layer in float32, or in INT8."""


@dataclass(frozen=True, slots=True)
class TokenValue:
    """Names tokens in a graph, and says how many of them an image has."""

    name: str
    """(batch, count, width) float32."""
    count: int
    sizes: str | None = None
    """(batch, count, 1) float32, how many tokens each stands for; None where each stands for itself."""


def in_and_out(linear: AnyLinear) -> tuple[int, int]:
    """Give (in, out) of a layer, whichever way its weight is laid out."""
    if isinstance(linear, QuantizedLinear):
        return linear.shape
    out_size, in_size = linear.weight.shape
    return in_size, out_size


Arrange: TypeAlias = Callable[[str], str]
"""Adds the nodes that give a value another shape or order of axes; from its name to that of the arranged value."""


def add_quantize(
    graph: GraphBuilder, value: str, linear: QuantizedLinear, name: str, *, arrange: Arrange | None = None
) -> str:
    """Add QuantizeLinear and DequantizeLinear of what a layer reads; gives the dequantized value.

    `arrange` works on what lies between the two: bytes, where the value itself is four times as large.
    """
    scale_name = graph.constant(f"{name}_scale", np.float32(linear.input_scale))
    zero_name = graph.constant(f"{name}_zero_point", np.uint8(linear.input_zero_point))
    levels = graph.node("QuantizeLinear", [value, scale_name, zero_name], f"{name}_levels")
    if linear.input_levels < ALL_LEVELS.inputs:
        most = graph.constant(f"highest_level_{linear.input_levels}", np.uint8(linear.input_levels))
        levels = graph.node("Clip", [levels, "", most], f"{name}_levels_clipped")
    levels = levels if arrange is None else arrange(levels)
    return graph.node("DequantizeLinear", [levels, scale_name, zero_name], f"{name}_dequantized")


def add_input(graph: GraphBuilder, value: str, linear: AnyLinear, name: str, *, arrange: Arrange | None = None) -> str:
    """Add what `linear` reads: `value`, quantized as the layer wants it (not at all in float32), then arranged."""
    if isinstance(linear, QuantizedLinear):
        return add_quantize(graph, value, linear, name, arrange=arrange)
    return value if arrange is None else arrange(value)


def add_class_row(graph: GraphBuilder, value: str, name: str) -> str:
    """Gather the class token's rows, (batch, width), of (batch, tokens, width)."""
    index = graph.constant("class_index", np.int64(0))
    return graph.node("Gather", [value, index], name, axis=1)


def add_gemm(
    graph: GraphBuilder,
    file: WeightFile,
    dequantized: str,
    linear: AnyLinear,
    name: str,
    *,
    rows: int,
) -> str:
    """Add a linear layer on (batch * rows, in); its input `dequantized` is already quantized when `linear` is.

    Args:
        graph: where the nodes go.
        file: where the weights go.
        dequantized: the input value; for INT8 the output of a DequantizeLinear.
        linear: the layer.
        name: prefix of the values and weights made here.
        rows: rows of one image, for the FLOPs.

    Returns:
        The (batch * rows, out) float32 value.
    """
    size_in, size_out = in_and_out(linear)
    graph.flops += 2 * rows * size_in * size_out
    if isinstance(linear, Linear):
        weight = graph.constant(f"{name}_weight", np.ascontiguousarray(linear.weight.T), file)
        inputs = [dequantized, weight]
        if linear.bias.any():
            inputs.append(graph.constant(f"{name}_bias", linear.bias, file))
        return graph.node("Gemm", inputs, name)
    scale = graph.constant(f"{name}_weight_scale", linear.weight_scale, file)
    levels = graph.constant(f"{name}_weight", linear.weight, file)
    zeros = graph.constant(f"{name}_weight_zero_point", np.zeros(size_out, np.int8), file)
    inputs = [dequantized, graph.node("DequantizeLinear", [levels, scale, zeros], f"{name}_weight_dequantized", axis=1)]
    if linear.bias is not None:
        bias_scale = (np.float32(linear.input_scale) * linear.weight_scale).astype(np.float32)
        bias = graph.constant(f"{name}_bias", linear.bias, file)
        bias_scale_name = graph.constant(f"{name}_bias_scale", bias_scale, file)
        inputs.append(graph.node("DequantizeLinear", [bias, bias_scale_name], f"{name}_bias_dequantized", axis=0))
    return graph.node("Gemm", inputs, name)


def add_linear(graph: GraphBuilder, file: WeightFile, value: str, linear: AnyLinear, name: str, *, rows: int) -> str:
    """Quantize `value` as `linear` wants it (not at all in float32) and apply the layer."""
    return add_gemm(graph, file, add_input(graph, value, linear, f"{name}_input"), linear, name, rows=rows)


def add_norm(
    graph: GraphBuilder, file: WeightFile, value: str, norm: LayerNorm, name: str, *, weights: str | None = None
) -> str:
    """Add LayerNormalization over the last axis; `weights` names another layer with this gain and bias."""
    weight = graph.constant(f"{weights or name}_weight", norm.weight, file)
    bias = graph.constant(f"{weights or name}_bias", norm.bias, file)
    return graph.node("LayerNormalization", [value, weight, bias], name, axis=-1, epsilon=norm.epsilon)


def add_activation(graph: GraphBuilder, value: str, activation: Activation, name: str) -> str:
    """Add GELU with the error function or the hyperbolic tangent, or OpenAI's ``x * sigmoid(1.702 x)``."""
    if activation == "gelu":
        return graph.node("Gelu", [value], name)
    if activation == "gelu_tanh":
        return graph.node("Gelu", [value], name, approximate="tanh")
    return graph.node("QuickGelu", [value], name, domain="com.microsoft", alpha=1.702)


def activation_operator(activation: Activation) -> str:
    """Name the operator that ONNX Runtime runs for an activation."""
    return "QuickGelu" if activation == "quick_gelu" else "Gelu"


def add_reshape(graph: GraphBuilder, value: str, shape: tuple[int, ...], name: str) -> str:
    """Reshape to a constant shape; one -1 stands for the batch."""
    target = graph.constant(
        "shape_" + "_".join(str(size).replace("-1", "n") for size in shape), np.array(shape, np.int64)
    )
    return graph.node("Reshape", [value, target], name)
