"""Builds one transformer block as an ONNX part, from tokens to tokens.

The last block has a second form that computes only the row that the tail reads: keys and values of all tokens, then the
class token alone.

    x += out(attention(norm_1(x)));  x += fc2(activation(fc1(norm_2(x))))

The inputs of the six linear layers are quantized, at four places (after norm_1, after the attention, after norm_2,
after the activation). The residual stream, softmax, both GEMMs of the attention and LayerNorm stay float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from onnx import TensorProto

from lraee_exporters.graphs.attention import HEADS_LAST, TOKENS_FIRST, add_attention, add_transpose
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import (
    AnyLinear,
    Arrange,
    activation_operator,
    add_activation,
    add_class_row,
    add_gemm,
    add_input,
    add_linear,
    add_norm,
    add_reshape,
)
from lraee_exporters.int8.linear import ActivationRange, QuantizedLinear, quantize_linear
from lraee_exporters.tower import Activation, Block, LayerNorm

QUANTIZED_INPUTS = ("norm_1", "attention", "norm_2", "activation")
"""The values of a block that are quantized, in the order in which they are computed."""

Layer: TypeAlias = Literal["query", "key", "value", "out", "fc1", "fc2"]
READS: dict[Layer, str] = {
    "query": "norm_1",
    "key": "norm_1",
    "value": "norm_1",
    "out": "attention",
    "fc1": "norm_2",
    "fc2": "activation",
}
"""Which quantized input each layer reads."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BlockWeights:
    """Holds the weights of one block, its linear layers in float32 or INT8."""

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
        """The channels of a token."""
        return int(self.norm_1.weight.size)

    @property
    def quantized(self) -> bool:
        """Whether the linear layers are INT8."""
        return isinstance(self.query, QuantizedLinear)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockForm:
    """Says which rows a block computes, and what its values are called."""

    token_count: int
    """Patches, and the class token if there is one."""
    class_only: bool = False
    """Compute the class token's row alone; its rows are those of the whole block."""
    prefix: str = ""
    """Stands before every name, ending in "/", when several parts share a graph."""

    @property
    def rows(self) -> int:
        """Rows of one image that the block gives."""
        return 1 if self.class_only else self.token_count


def float_block(block: Block, activation: Activation) -> BlockWeights:
    """Take the weights of a block as it was trained."""
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
    """Round the linear layers of a block to INT8.

    Args:
        block: float32 weights.
        activation: the tower's activation.
        ranges: one for each of `QUANTIZED_INPUTS`.
    """
    plain = float_block(block, activation)
    layers = {layer: quantize_linear(getattr(plain, layer), ranges[reads]) for layer, reads in READS.items()}
    return with_layers(plain, layers)


def with_layers(block: BlockWeights, layers: Mapping[Layer, QuantizedLinear]) -> BlockWeights:
    """Put INT8 layers in place of a block's own."""
    return replace(block, **layers)  # type: ignore[arg-type] # names are those of the fields


def add_block(graph: GraphBuilder, file: WeightFile, tokens: str, block: BlockWeights, form: BlockForm) -> str:
    """Add one transformer block to `graph`.

    Args:
        graph: where the nodes go.
        file: where the weights go.
        tokens: the (batch, token_count, width) float32 input.
        block: its weights.
        form: which rows are computed, and what their values are called.

    Returns:
        The (batch, token_count, width) float32 output, or with `class_only` (batch, 1, width).
    """
    width, p, rows = block.width, form.prefix, form.rows
    asking = normed = add_norm(graph, file, tokens, block.norm_1, f"{p}norm_1")
    if form.class_only:  # a second LayerNorm of the class token is cheaper than cutting its row out of all tokens'
        x = add_class_row(graph, tokens, f"{p}class_token")
        asking = add_norm(graph, file, x, block.norm_1, f"{p}norm_1_class", weights=f"{p}norm_1")
    else:
        x = add_reshape(graph, tokens, (-1, width), f"{p}tokens_flat")
    attended = _add_heads(graph, file, normed, asking, block, form)
    x = graph.node("Add", [x, attended], f"{p}residual_1")

    normed = add_norm(graph, file, x, block.norm_2, f"{p}norm_2")
    hidden = add_linear(graph, file, normed, block.fc1, f"{p}fc1", rows=rows)
    hidden = add_activation(graph, hidden, block.activation, f"{p}activation")
    update = add_linear(graph, file, hidden, block.fc2, f"{p}fc2", rows=rows)
    x, update = (add_reshape(graph, value, (-1, rows, width), f"{value}_split") for value in (x, update))
    return graph.node("Add", [x, update], f"{p}residual_2")


def _add_heads(
    graph: GraphBuilder, file: WeightFile, normed: str, asking: str, block: BlockWeights, form: BlockForm
) -> str:
    """Add the four linear layers around the attention, and the attention.

    Args:
        graph: where the nodes go.
        file: where the weights go.
        normed: (batch, tokens, width) float32, what keys and values are made of.
        asking: the same value, or another for the class token alone, (batch, width) float32.
        block: its weights.
        form: as in `add_block`.

    Returns:
        (batch * tokens, width) or (batch, width) float32.
    """
    p, width, heads, rows = form.prefix, block.width, block.heads, form.rows
    tokens_first = _tokens_first(graph, width, f"{p}norm_1")
    by_token = add_input(graph, normed, block.query, f"{p}norm_1_input", arrange=tokens_first)
    read = by_token if asking == normed else add_input(graph, asking, block.query, f"{p}norm_1_class_input")
    projected = []
    for name, linear, value, count in (
        ("query", block.query, read, rows),
        ("key", block.key, by_token, form.token_count),
        ("value", block.value, by_token, form.token_count),
    ):
        product = add_gemm(graph, file, value, linear, f"{p}{name}", rows=count)
        projected.append(add_reshape(graph, product, (count, -1, heads, width // heads), f"{p}{name}_split"))
    attended = add_attention(graph, *projected, channels=width // heads, name=f"{p}attention")
    graph.flops += 4 * rows * form.token_count * width
    joined = _heads_joined(graph, rows, width, f"{p}attention")
    attended = add_input(graph, attended, block.out, f"{p}out_input", arrange=joined)
    return add_gemm(graph, file, attended, block.out, f"{p}out", rows=rows)


def _tokens_first(graph: GraphBuilder, width: int, name: str) -> Arrange:
    """Arrange (batch, tokens, width) as (tokens * batch, width), in the order that `add_attention` reads."""

    def arrange(value: str) -> str:
        value = add_transpose(graph, value, TOKENS_FIRST, f"{name}_by_token")
        return add_reshape(graph, value, (-1, width), f"{name}_by_token_flat")

    return arrange


def _heads_joined(graph: GraphBuilder, rows: int, width: int, name: str) -> Arrange:
    """Arrange (batch, heads, rows, channels) as (batch * rows, width), which needs no copy for one row."""

    def arrange(value: str) -> str:
        if rows > 1:
            value = add_transpose(graph, value, HEADS_LAST, f"{name}_by_row")
        return add_reshape(graph, value, (-1, width), f"{name}_flat")

    return arrange


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
    after = add_block(graph, file, tokens, block, BlockForm(token_count=token_count, class_only=class_only))
    graph.output(after, "tokens_out", TensorProto.FLOAT, ["batch", 1, block.width] if class_only else shape)
    if observe:
        add_reshape(graph, "norm_1", (-1, block.width), "norm_1_flat")
        for value in QUANTIZED_INPUTS:
            produced = f"{value}_flat" if value in ("norm_1", "attention") else value
            graph.output(produced, f"observed_{value}", TensorProto.FLOAT, ["rows", "channels"])
    return graph, file


def operators_of_block(block: BlockWeights, *, class_only: bool = False) -> dict[str, int]:
    """Count what ONNX Runtime must run for one block after fusion, by operator name."""
    counts = {"LayerNormalization": 2, "FusedMatMul": 2, "Softmax": 1, "Add": 2, "Transpose": 2, "Reshape": 8}
    counts[activation_operator(block.activation)] = 1
    if class_only:
        counts |= {"LayerNormalization": 3, "Gather": 1, "Transpose": 1, "Reshape": 7}
    if block.quantized:
        return counts | {"QGemm": 6, "QuantizeLinear": 5 if class_only else 4}
    return counts | {"Gemm": 6}
