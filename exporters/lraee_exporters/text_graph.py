"""The text tower as one ONNX part: token ids in, unit embeddings out.

One graph and not one for each block: every text runs to the end, and only when labels change. The tokens stay
(texts, length, width) throughout, with the length symbolic, so that short prompts cost what they are long.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from onnx import TensorProto

from lraee_exporters.graph import GraphBuilder, WeightFile
from lraee_exporters.layers import add_activation, add_norm
from lraee_exporters.quantized import quantize_weight
from lraee_exporters.text_tower import TextTower
from lraee_exporters.tower import Activation, Block, Linear

TextPrecision: TypeAlias = Literal["fp32", "fp16", "int8"]
"""How weights are stored. ``fp16`` computes in float32. ``int8`` computes matrix products of activations that are
quantized when they are there (dynamic quantization), and keeps the token embedding in int8 too."""

TEXT_PRECISIONS: tuple[TextPrecision, ...] = get_args(TextPrecision)


@dataclass(slots=True)
class _Writer:
    """Where nodes and weights go, and how weights are stored."""

    graph: GraphBuilder
    file: WeightFile
    precision: TextPrecision
    length: int
    """Tokens of the longest text, for the FLOPs."""

    def linear(self, value: str, linear: Linear, name: str, *, rows: int) -> str:
        """A linear layer over the last axis; `rows` of one text, for the FLOPs."""
        graph, file = self.graph, self.file
        graph.flops += 2 * rows * linear.weight.size
        bias = graph.constant(f"{name}_bias", linear.bias, file) if linear.bias.any() else ""
        if self.precision == "int8":
            levels, scale = quantize_weight(linear.weight)
            inputs = [value, graph.constant(f"{name}_weight", levels, file)]
            inputs += [graph.constant(f"{name}_weight_scale", scale, file), "", bias]
            return graph.node("DynamicQuantizeMatMul", inputs, name, domain="com.microsoft")
        weight = np.ascontiguousarray(linear.weight.T)
        if self.precision == "fp16":
            half = graph.constant(f"{name}_weight", weight.astype(np.float16), file)
            product = graph.node("MatMul", [value, self.widened(half)], f"{name}_product")
        else:
            product = graph.node("MatMul", [value, graph.constant(f"{name}_weight", weight, file)], f"{name}_product")
        return graph.node("Add", [product, bias], name) if bias else product

    def widened(self, value: str) -> str:
        """A value in float32."""
        return self.graph.node("Cast", [value], f"{value}_float", to=TensorProto.FLOAT)

    def rows_of(self, table: np.ndarray, index: str, name: str) -> str:
        """Rows of a float32 table: gathered first and widened then, so that the table stays mapped as it lies."""
        graph, file = self.graph, self.file
        if self.precision == "fp32":
            return graph.node("Gather", [graph.constant(f"{name}_table", table, file), index], name)
        if self.precision == "fp16":
            half = graph.constant(f"{name}_table", table.astype(np.float16), file)
            return self.widened(graph.node("Gather", [half, index], name))
        levels, scale = quantize_weight(table)
        stored = graph.constant(f"{name}_table", np.ascontiguousarray(levels.T), file)
        scales = graph.constant(f"{name}_table_scale", scale[:, None], file)
        rows = self.widened(graph.node("Gather", [stored, index], f"{name}_levels"))
        return graph.node("Mul", [rows, graph.node("Gather", [scales, index], f"{name}_scale")], name)


def build_text(tower: TextTower, precision: TextPrecision) -> tuple[GraphBuilder, WeightFile]:
    """Build the part ``text``: `tokens` (texts, length) int64 to `embedding` (texts, embed_dim) float32, unit rows.

    The row of the largest token id is the text's, as in open_clip: that of the first end-of-text token. Its FLOPs are
    those of a text that fills the context.

    Args:
        tower: the weights.
        precision: how they are stored.
    """
    graph, file = GraphBuilder("text"), WeightFile("text.data")
    writer = _Writer(graph, file, precision, tower.context_length)
    tokens = graph.input("tokens", TensorProto.INT64, ["texts", "length"])
    x = writer.rows_of(tower.token_embedding, tokens, "token_embedding")
    x = graph.node("Add", [x, _positions(writer, tower, tokens)], "embedded")
    for number, block in enumerate(tower.blocks, start=1):
        x = _add_block(writer, x, block, tower.activation, f"block_{number:02d}/")
    last = graph.node("ArgMax", [tokens], "end_of_text", axis=1, keepdims=1)
    x = graph.node("GatherND", [x, last], "text_token", batch_dims=1)
    x = add_norm(graph, file, x, tower.norm_final, "norm_final")
    x = writer.linear(x, tower.projection, "projection", rows=1)
    unit = graph.node("LpNormalization", [x], "unit", axis=-1, p=2)
    graph.output(unit, "embedding", TensorProto.FLOAT, ["texts", tower.embed_dim])
    return graph, file


def _positions(writer: _Writer, tower: TextTower, tokens: str) -> str:
    """The first `length` positions, (length, width)."""
    graph = writer.graph
    table = graph.constant("positions", tower.positions, writer.file)
    shape = graph.node("Shape", [tokens], "length", start=1)
    begin, axis = (graph.constant(name, np.array([0], np.int64)) for name in ("first_position", "axis_positions"))
    return graph.node("Slice", [table, begin, shape, axis], "positions_of_length")


def _add_block(writer: _Writer, x: str, block: Block, activation: Activation, p: str) -> str:
    """One block whose tokens do not look ahead: (texts, length, width) to the same."""
    graph, rows = writer.graph, writer.length
    attention = block.attention
    normed = add_norm(graph, writer.file, x, block.norm_1, f"{p}norm_1")
    layers = {"query": attention.query, "key": attention.key, "value": attention.value}
    projected = [writer.linear(normed, layer, f"{p}{name}", rows=rows) for name, layer in layers.items()]
    heads = attention.heads
    attended = graph.node("Attention", projected, f"{p}attention", is_causal=1, q_num_heads=heads, kv_num_heads=heads)
    graph.flops += 4 * rows * rows * attention.query.weight.shape[0]
    x = graph.node("Add", [x, writer.linear(attended, attention.out, f"{p}out", rows=rows)], f"{p}residual_1")
    normed = add_norm(graph, writer.file, x, block.norm_2, f"{p}norm_2")
    hidden = writer.linear(normed, block.mlp.fc1, f"{p}fc1", rows=rows)
    hidden = add_activation(graph, hidden, activation, f"{p}activation")
    update = writer.linear(hidden, block.mlp.fc2, f"{p}fc2", rows=rows)
    return graph.node("Add", [x, update], f"{p}residual_2")


def operators_of_text(tower: TextTower, precision: TextPrecision) -> dict[str, int]:
    """What ONNX Runtime must run for the text tower after fusion, by operator name."""
    blocks = len(tower.blocks)
    products = 6 * blocks + 1
    counts = {"ArgMax": 1, "Shape": 1, "Slice": 1, "Gather": 1, "GatherND": 1, "LpNormalization": 1}
    counts |= {"Attention": blocks, "LayerNormalization": 2 * blocks + 1, "Add": 2 * blocks + 1}
    activation = "Gelu" if tower.activation == "gelu" else "QuickGelu"
    if precision == "int8":
        return counts | {"Gather": 2, "Cast": 1, "Mul": 1, "DynamicQuantizeMatMul": products, activation: blocks}
    counts |= {"MatMul": products, "Cast": 1} if precision == "fp16" else {"MatMul": products}
    attention = [(b.attention.query, b.attention.key, b.attention.value, b.attention.out) for b in tower.blocks]
    linears = [tower.projection, *(layer for layers in attention for layer in layers)]
    linears += [layer for block in tower.blocks for layer in (block.mlp.fc1, block.mlp.fc2)]
    biases = sum(int(linear.bias.any()) for linear in linears)
    fused = sum(int(block.mlp.fc1.bias.any()) for block in tower.blocks) if activation == "Gelu" else 0
    counts["Add"] += biases - fused
    counts |= {"BiasGelu": fused} if fused else {}
    return counts | ({activation: blocks - fused} if blocks > fused else {})
