"""Builds one transformer block as an ONNX part, from tokens to tokens.

The last block has a second form that computes only the row that the tail reads: keys and values of all tokens, then the
class token alone.

    x += out(attention(norm_1(x)));  x += fc2(activation(fc1(norm_2(x))))

The inputs of the six linear layers are quantized, at four places (after norm_1, after the attention, after norm_2,
after the activation). The residual stream, softmax, both GEMMs of the attention and LayerNorm stay float.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
from onnx import TensorProto

from lraee_exporters.graphs.attention import HEADS_LAST, TOKENS_FIRST, add_attention, add_transpose
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import (
    AnyLinear,
    Arrange,
    TokenValue,
    activation_operator,
    add_activation,
    add_class_row,
    add_gemm,
    add_input,
    add_linear,
    add_norm,
    add_reshape,
)
from lraee_exporters.graphs.pooling.merging import MergeForm, add_merging, flops_of_merging, operators_of_merging
from lraee_exporters.int8.linear import ALL_LEVELS, ActivationRange, QuantizedLinear, quantize_linear
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

    @property
    def saturates(self) -> bool:
        """Whether a layer is INT8 whose products may saturate; see `lraee_exporters.int8.linear.Levels`."""
        layers = (getattr(self, layer) for layer in READS)
        return any(isinstance(layer, QuantizedLinear) and layer.saturates for layer in layers)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockForm:
    """Says which rows a block computes, and what its values are called."""

    token_count: int
    """Patches, and the class token if there is one."""
    class_only: bool = False
    """Compute the class token's row alone; its rows are those of the whole block."""
    merged: int = 0
    """Pairs of tokens that become one between attention and MLP; see `merging`."""
    sized: bool = False
    """Whether tokens may stand for several, so that the part has the input `sizes`."""
    class_token: bool = True
    """Whether token 0 is a class token, which is never merged."""
    prefix: str = ""
    """Stands before every name, ending in "/", when several parts share a graph."""

    @property
    def rows(self) -> int:
        """Rows of one image that the attention gives."""
        return 1 if self.class_only else self.token_count

    @property
    def left(self) -> int:
        """Rows of one image that the block gives."""
        return self.rows - self.merged


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


def add_block(
    graph: GraphBuilder, file: WeightFile, tokens: TokenValue, block: BlockWeights, form: BlockForm
) -> TokenValue:
    """Add one transformer block to `graph`.

    Args:
        graph: where the nodes go.
        file: where the weights go.
        tokens: that it reads; one that stands for several is attended to as if it were there as often.
        block: its weights.
        form: which rows are computed, and what their values are called.

    Returns:
        The tokens that are left, or with `class_only` the class token alone.
    """
    width, p, rows = block.width, form.prefix, form.rows
    asking = normed = add_norm(graph, file, tokens.name, block.norm_1, f"{p}norm_1")
    if form.class_only:  # a second LayerNorm of the class token is cheaper than cutting its row out of all tokens'
        x = add_class_row(graph, tokens.name, f"{p}class_token")
        asking = add_norm(graph, file, x, block.norm_1, f"{p}norm_1_class", weights=f"{p}norm_1")
    else:
        x = add_reshape(graph, tokens.name, (-1, width), f"{p}tokens_flat")
    mask, sizes = None, tokens.sizes
    if sizes is not None:
        logarithms = graph.node("Log", [sizes], f"{p}log_sizes")
        mask = add_reshape(graph, logarithms, (-1, 1, 1, form.token_count), f"{p}log_sizes_row")
    attended = _add_heads(_Part(graph, file, form), block, normed, asking, mask)
    x = graph.node("Add", [x, attended], f"{p}residual_1")
    if form.merged:
        x = add_reshape(graph, x, (-1, rows, width), f"{p}residual_1_tokens")
        merge = _merge_form(form, width=width, heads=block.heads)
        merged = add_merging(graph, TokenValue(x, rows, sizes), f"{p}key_split", merge)
        x, rows, sizes = add_reshape(graph, merged.name, (-1, width), f"{p}merged_flat"), merged.count, merged.sizes

    normed = add_norm(graph, file, x, block.norm_2, f"{p}norm_2")
    hidden = add_linear(graph, file, normed, block.fc1, f"{p}fc1", rows=rows)
    hidden = add_activation(graph, hidden, block.activation, f"{p}activation")
    update = add_linear(graph, file, hidden, block.fc2, f"{p}fc2", rows=rows)
    x, update = (add_reshape(graph, value, (-1, rows, width), f"{value}_split") for value in (x, update))
    return TokenValue(graph.node("Add", [x, update], f"{p}residual_2"), rows, sizes)


def _merge_form(form: BlockForm, *, width: int, heads: int) -> MergeForm:
    return MergeForm(
        token_count=form.rows,
        merged=form.merged,
        width=width,
        channels=width // heads,
        class_token=form.class_token,
        prefix=form.prefix,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """Where a block is written, and in which form."""

    graph: GraphBuilder
    file: WeightFile
    form: BlockForm


def _add_heads(part: _Part, block: BlockWeights, normed: str, asking: str, mask: str | None) -> str:
    """Add the four linear layers around the attention, and the attention.

    Args:
        part: where they go.
        block: its weights.
        normed: (batch, tokens, width) float32, what keys and values are made of.
        asking: the same value, or another for the class token alone, (batch, width) float32.
        mask: (batch, 1, 1, tokens) float32, added before the softmax, or None.

    Returns:
        (batch * tokens, width) or (batch, width) float32.
    """
    graph, file, form = part.graph, part.file, part.form
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
    query, key, value = projected
    attended = add_attention(graph, (query, key, value), channels=width // heads, name=f"{p}attention", mask=mask)
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
    block: BlockWeights, form: BlockForm, *, number: int, observe: bool = False, class_attention: bool = False
) -> tuple[GraphBuilder, WeightFile]:
    """Build the part ``block_NN``: `tokens` (batch, tokens, width) float32 in and out.

    With `class_only` the graph is ``block_NN_class`` and gives (batch, 1, width). A graph that merges tokens, or whose
    tokens may stand for several, has the numbers of tokens before and after it in its name, such as ``block_05_46_43``,
    and `sizes` (batch, tokens, 1) float32 beside its tokens. All graphs of a block read the same ``block_NN.data``.

    Args:
        block: its weights.
        form: which rows it computes.
        number: counted from 1.
        observe: also give the four `QUANTIZED_INPUTS` as outputs, (batch * tokens, ...) float32, for calibration.
        class_attention: also give `class_attention` (batch, tokens) float32, what the class token pays to each token,
            summed over the heads, for methods that judge tokens by it.
    """
    name, count = f"block_{number:02d}", form.token_count
    graph, file = GraphBuilder(graph_name(number, form)), WeightFile(f"{name}.data")
    tokens = graph.input("tokens", TensorProto.FLOAT, ["batch", count, block.width])
    sizes = graph.input("sizes", TensorProto.FLOAT, ["batch", count, 1]) if form.sized else None
    after = add_block(graph, file, TokenValue(tokens, count, sizes), block, form)
    graph.output(after.name, "tokens_out", TensorProto.FLOAT, ["batch", form.left, block.width])
    if form.merged and after.sizes is not None:
        graph.output(after.sizes, "sizes_out", TensorProto.FLOAT, ["batch", form.left, 1])
    if class_attention:
        row, heads = (graph.constant(*one) for one in (("class_row", np.int64(0)), ("axis_heads", np.array([1]))))
        paid = graph.node("Gather", ["attention_weights", row], "class_rows", axis=2)
        paid = graph.node("ReduceSum", [paid, heads], "class_sum", keepdims=0)
        graph.output(paid, "class_attention", TensorProto.FLOAT, ["batch", count])
    if observe:
        add_reshape(graph, "norm_1", (-1, block.width), "norm_1_flat")
        for value in QUANTIZED_INPUTS:
            produced = f"{value}_flat" if value in ("norm_1", "attention") else value
            graph.output(produced, f"observed_{value}", TensorProto.FLOAT, ["rows", "channels"])
    return graph, file


def flops_of_block(form: BlockForm, *, width: int, mlp_width: int, heads: int) -> int:
    """Count the FLOPs of a block for one image, as `build_block` does.

    Args:
        form: which rows it computes.
        width: channels of a token.
        mlp_width: channels of its hidden layer.
        heads: of the attention.
    """
    rows, count = form.rows, form.token_count
    flops = 2 * width * width * (2 * rows + 2 * count) + 4 * rows * count * width
    if form.merged:
        flops += flops_of_merging(_merge_form(form, width=width, heads=heads))
    return flops + 4 * form.left * width * mlp_width


def graph_name(number: int, form: BlockForm) -> str:
    """Name the graph of a block.

    >>> graph_name(5, BlockForm(token_count=50)), graph_name(5, BlockForm(token_count=46, merged=3, sized=True))
    ('block_05', 'block_05_46_43')
    >>> graph_name(12, BlockForm(token_count=20, sized=True, class_only=True))
    'block_12_class_20'
    """
    name = f"block_{number:02d}{'_class' if form.class_only else ''}"
    if form.class_only:
        return f"{name}_{form.token_count}" if form.sized else name
    return f"{name}_{form.token_count}_{form.left}" if form.sized or form.merged else name


def operators_of_block(block: BlockWeights, form: BlockForm) -> dict[str, int]:
    """Count what ONNX Runtime must run for one block after fusion, by operator name."""
    counts = Counter({"LayerNormalization": 2, "FusedMatMul": 2, "Softmax": 1, "Add": 2, "Transpose": 2, "Reshape": 8})
    counts[activation_operator(block.activation)] = 1
    if form.class_only:
        counts.update({"LayerNormalization": 1, "Gather": 1, "Transpose": -1, "Reshape": -1})
    if form.sized:
        counts.update({"Log": 1, "Reshape": 1, "Add": 1})
    if form.merged:
        counts.update({"Reshape": 2, **operators_of_merging(sized=form.sized, class_token=form.class_token)})
    inputs = len(QUANTIZED_INPUTS) + form.class_only
    counts.update({"QGemm": 6, "QuantizeLinear": inputs} if block.quantized else {"Gemm": 6})
    if isinstance(block.query, QuantizedLinear) and block.query.input_levels < ALL_LEVELS.inputs:
        counts["Clip"] = inputs
    return dict(counts)
