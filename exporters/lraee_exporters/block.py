"""One transformer block as an ONNX part: tokens in, tokens out.

The last block has a second form that computes only the row which the tail reads: keys and values of all tokens, and the
class token alone from there on.

    x += out(attention(norm_1(x)));  x += fc2(activation(fc1(norm_2(x))))

Quantized are the inputs of the six linear layers, at four places (after norm_1, after the attention, after norm_2,
after the activation). The residual stream, softmax, both attention products and LayerNorm stay float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import TensorProto

from lraee_exporters.graph import GraphBuilder, WeightFile
from lraee_exporters.layers import (
    AnyLinear,
    activation_operator,
    add_activation,
    add_class_row,
    add_gemm,
    add_linear,
    add_norm,
    add_quantize,
    add_reshape,
)
from lraee_exporters.quantized import ActivationRange, QuantizedLinear, quantize_linear
from lraee_exporters.tower import Activation, Block, LayerNorm

QUANTIZED_INPUTS = ("norm_1", "attention", "norm_2", "activation")
"""The values of a block that are quantized, in the order in which they are computed."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockWeights:
    """What one block computes with, its linear layers in float32 or INT8."""

    norm_1: LayerNorm
    query: AnyLinear
    key: AnyLinear
    value: AnyLinear
    out: AnyLinear
    norm_2: LayerNorm
    fc1: AnyLinear
    fc2: AnyLinear
    heads: int
    activation: Activation

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.norm_1.weight.size)


def float_block(block: Block, activation: Activation) -> BlockWeights:
    """The block as it was trained."""
    attention = block.attention
    return BlockWeights(
        norm_1=block.norm_1,
        query=attention.query,
        key=attention.key,
        value=attention.value,
        out=attention.out,
        norm_2=block.norm_2,
        fc1=block.mlp.fc1,
        fc2=block.mlp.fc2,
        heads=attention.heads,
        activation=activation,
    )


def quantize_block(block: Block, activation: Activation, ranges: Mapping[str, ActivationRange]) -> BlockWeights:
    """The block with its linear layers rounded to INT8.

    Args:
        block: float32 weights.
        activation: the tower's activation.
        ranges: one for each of `QUANTIZED_INPUTS`.
    """
    attention = block.attention
    return BlockWeights(
        norm_1=block.norm_1,
        query=quantize_linear(attention.query, ranges["norm_1"]),
        key=quantize_linear(attention.key, ranges["norm_1"]),
        value=quantize_linear(attention.value, ranges["norm_1"]),
        out=quantize_linear(attention.out, ranges["attention"]),
        norm_2=block.norm_2,
        fc1=quantize_linear(block.mlp.fc1, ranges["norm_2"]),
        fc2=quantize_linear(block.mlp.fc2, ranges["activation"]),
        heads=attention.heads,
        activation=activation,
    )


def add_block(
    graph: GraphBuilder,
    file: WeightFile,
    tokens: str,
    block: BlockWeights,
    *,
    token_count: int,
    class_only: bool = False,
    prefix: str = "",
) -> str:
    """Add one block to `graph`.

    Args:
        graph: where the nodes go.
        file: where the weights go.
        tokens: the (batch, token_count, width) float32 input.
        block: its weights.
        token_count: patches, and the class token if there is one.
        class_only: compute the class token's row alone; its rows are those of the whole block.
        prefix: put before every name, ending in "/", when several parts share a graph.

    Returns:
        The (batch, token_count, width) float32 output, or with `class_only` (batch, 1, width).
    """
    width, p = block.width, prefix
    rows = 1 if class_only else token_count
    flat, split = (-1, width), (-1, rows, width)
    x = add_reshape(graph, tokens, flat, f"{p}tokens_flat")

    normed = add_norm(graph, file, x, block.norm_1, f"{p}norm_1")
    if isinstance(block.query, QuantizedLinear):
        normed = add_quantize(graph, normed, block.query.input_scale, block.query.input_zero_point, f"{p}norm_1_input")
    asking = normed
    if class_only:
        x = add_class_row(graph, tokens, f"{p}class_token")
        asking = _class_row_of_normed(graph, file, x, block, p)
    query = add_gemm(graph, file, asking, block.query, f"{p}query", rows=rows)
    projected = [add_reshape(graph, query, split, f"{p}query_split")]
    for name, linear in (("key", block.key), ("value", block.value)):
        flat_value = add_gemm(graph, file, normed, linear, f"{p}{name}", rows=token_count)
        projected.append(add_reshape(graph, flat_value, (-1, token_count, width), f"{p}{name}_split"))
    attended = graph.node("Attention", projected, f"{p}attention", q_num_heads=block.heads, kv_num_heads=block.heads)
    graph.flops += 4 * rows * token_count * width
    attended = add_reshape(graph, attended, flat, f"{p}attention_flat")
    x = graph.node("Add", [x, add_linear(graph, file, attended, block.out, f"{p}out", rows=rows)], f"{p}residual_1")

    normed = add_norm(graph, file, x, block.norm_2, f"{p}norm_2")
    hidden = add_linear(graph, file, normed, block.fc1, f"{p}fc1", rows=rows)
    hidden = add_activation(graph, hidden, block.activation, f"{p}activation")
    update = add_linear(graph, file, hidden, block.fc2, f"{p}fc2", rows=rows)
    x, update = (add_reshape(graph, value, split, f"{value}_split") for value in (x, update))
    return graph.node("Add", [x, update], f"{p}residual_2")


def _class_row_of_normed(graph: GraphBuilder, file: WeightFile, x: str, block: BlockWeights, p: str) -> str:
    """LayerNorm and quantization of the class token once more: cheaper than to cut its levels out of all tokens'."""
    normed = add_norm(graph, file, x, block.norm_1, f"{p}norm_1_class", weights=f"{p}norm_1")
    if not isinstance(block.query, QuantizedLinear):
        return normed
    query = block.query
    return add_quantize(graph, normed, query.input_scale, query.input_zero_point, f"{p}norm_1_class_input")


def build_block(
    block: BlockWeights, *, number: int, token_count: int, observe: bool = False, class_only: bool = False
) -> tuple[GraphBuilder, WeightFile]:
    """Build the part ``block_NN``: `tokens` (batch, tokens, width) float32 in and out.

    With `class_only` the graph is ``block_NN_class`` and gives (batch, 1, width); it reads the same ``block_NN.data``.

    Args:
        block: its weights.
        number: counted from 1.
        token_count: patches, and the class token if there is one.
        class_only: compute the class token's row alone.
        observe: also give the four `QUANTIZED_INPUTS` as outputs, (batch * tokens, ...) float32, for calibration.
    """
    name = f"block_{number:02d}"
    graph, file = GraphBuilder(f"{name}_class" if class_only else name), WeightFile(f"{name}.data")
    shape: list[int | str] = ["batch", token_count, block.width]
    tokens = graph.input("tokens", TensorProto.FLOAT, shape)
    after = add_block(graph, file, tokens, block, token_count=token_count, class_only=class_only)
    graph.output(after, "tokens_out", TensorProto.FLOAT, ["batch", 1, block.width] if class_only else shape)
    if observe:
        for value in QUANTIZED_INPUTS:
            produced = "attention_flat" if value == "attention" else value
            graph.output(produced, f"observed_{value}", TensorProto.FLOAT, ["rows", "channels"])
    return graph, file


def operators_of_block(block: BlockWeights, *, class_only: bool = False) -> dict[str, int]:
    """What ONNX Runtime must run for one INT8 block after fusion, by operator name."""
    counts = {"LayerNormalization": 2, "Attention": 1, "Add": 2, "Reshape": 7}
    counts[activation_operator(block.activation)] = 1
    if class_only:
        counts |= {"LayerNormalization": 3, "Gather": 1}
    if isinstance(block.query, QuantizedLinear):
        return counts | {"QGemm": 6, "QuantizeLinear": 5 if class_only else 4}
    return counts | {"Gemm": 6}


__all__ = [
    "QUANTIZED_INPUTS",
    "BlockWeights",
    "add_block",
    "build_block",
    "float_block",
    "operators_of_block",
    "quantize_block",
]
