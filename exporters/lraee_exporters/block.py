"""One transformer block as an ONNX part: tokens in, tokens out.

    x += out(attention(norm_1(x)));  x += fc2(activation(fc1(norm_2(x))))

Quantized are the inputs of the six linear layers, at four places (after norm_1, after the attention, after norm_2,
after the activation). The residual stream, softmax, both attention products and LayerNorm stay float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from onnx import TensorProto

from lraee_exporters.graph import GraphBuilder, WeightFile
from lraee_exporters.layers import AnyLinear, add_activation, add_gemm, add_linear, add_norm, add_quantize, add_reshape
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
    graph: GraphBuilder, file: WeightFile, tokens: str, block: BlockWeights, *, token_count: int, prefix: str = ""
) -> str:
    """Add one block to `graph`.

    Args:
        graph: where the nodes go.
        file: where the weights go.
        tokens: the (batch, token_count, width) float32 input.
        block: its weights.
        token_count: patches and the class token.
        prefix: put before every name, ending in "/", when several parts share a graph.

    Returns:
        The (batch, token_count, width) float32 output.
    """
    width, p = block.width, prefix
    flat = (-1, width)
    split = (-1, token_count, width)
    x = add_reshape(graph, tokens, flat, f"{p}tokens_flat")

    normed = add_norm(graph, file, x, block.norm_1, f"{p}norm_1")
    if isinstance(block.query, QuantizedLinear):
        normed = add_quantize(graph, normed, block.query.input_scale, block.query.input_zero_point, f"{p}norm_1_input")
    projected = []
    for name, linear in (("query", block.query), ("key", block.key), ("value", block.value)):
        flat_value = add_gemm(graph, file, normed, linear, f"{p}{name}", rows=token_count)
        projected.append(add_reshape(graph, flat_value, split, f"{p}{name}_split"))
    attended = graph.node("Attention", projected, f"{p}attention", q_num_heads=block.heads, kv_num_heads=block.heads)
    graph.flops += 4 * token_count * token_count * width
    attended = add_reshape(graph, attended, flat, f"{p}attention_flat")
    x = graph.node(
        "Add", [x, add_linear(graph, file, attended, block.out, f"{p}out", rows=token_count)], f"{p}residual_1"
    )

    normed = add_norm(graph, file, x, block.norm_2, f"{p}norm_2")
    hidden = add_linear(graph, file, normed, block.fc1, f"{p}fc1", rows=token_count)
    hidden = add_activation(graph, hidden, block.activation, f"{p}activation")
    update = add_linear(graph, file, hidden, block.fc2, f"{p}fc2", rows=token_count)
    x, update = (add_reshape(graph, value, split, f"{value}_split") for value in (x, update))
    return graph.node("Add", [x, update], f"{p}residual_2")


def build_block(
    block: BlockWeights, *, number: int, token_count: int, observe: bool = False
) -> tuple[GraphBuilder, WeightFile]:
    """Build the part ``block_NN``: `tokens` (batch, tokens, width) float32 in and out.

    Args:
        block: its weights.
        number: counted from 1.
        token_count: patches and the class token.
        observe: also give the four `QUANTIZED_INPUTS` as outputs, (batch * tokens, ...) float32, for calibration.
    """
    name = f"block_{number:02d}"
    graph, file = GraphBuilder(name), WeightFile(f"{name}.data")
    shape: list[int | str] = ["batch", token_count, block.width]
    tokens = graph.input("tokens", TensorProto.FLOAT, shape)
    graph.output(add_block(graph, file, tokens, block, token_count=token_count), "tokens_out", TensorProto.FLOAT, shape)
    if observe:
        for value in QUANTIZED_INPUTS:
            produced = "attention_flat" if value == "attention" else value
            graph.output(produced, f"observed_{value}", TensorProto.FLOAT, ["rows", "channels"])
    return graph, file


def operators_of_block(block: BlockWeights) -> dict[str, int]:
    """What ONNX Runtime must run for one INT8 block after fusion, by operator name."""
    counts = {"LayerNormalization": 2, "Attention": 1, "Add": 2, "Reshape": 7}
    counts["Gelu" if block.activation == "gelu" else "QuickGelu"] = 1
    if isinstance(block.query, QuantizedLinear):
        return counts | {"QGemm": 6, "QuantizeLinear": 4}
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
