"""Builds the text tower as one ONNX part, from token ids to unit embeddings.

It is one graph, not one for each block: every text runs to the end, and only when labels change. The tokens stay
(texts, length, width) throughout, with a symbolic length, so that short prompts cost less.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from onnx import TensorProto, numpy_helper

from lraee_exporters.graphs.attention import HEADS_LAST, add_transpose, add_weights
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import add_activation, add_norm, add_reshape
from lraee_exporters.int8.linear import quantize_weight
from lraee_exporters.loading.text_tower import TextTower
from lraee_exporters.tower import Activation, Block, Linear

TextPrecision: TypeAlias = Literal["fp32", "fp16", "int8"]
"""How weights are stored. ``fp16`` computes in float32. ``int8`` computes GEMMs with activations that are quantized at
run time (dynamic quantization), and keeps the token embedding in int8 too."""


@dataclass(slots=True)
class _Writer:
    """Adds layers to a graph, and stores their weights in one precision."""

    graph: GraphBuilder
    file: WeightFile
    precision: TextPrecision
    length: int
    """Tokens of the longest text, for the FLOPs."""

    def linear(self, value: str, linear: Linear, name: str, *, rows: int) -> str:
        """Add a linear layer over the last axis; `rows` of one text, for the FLOPs."""
        product, bias = self._product(value, linear, name, rows=rows)
        return self.graph.node("Add", [product, bias], name) if bias else product

    def hidden(self, value: str, linear: Linear, activation: Activation, name: str, *, rows: int) -> str:
        """Add the MLP's first layer and its activation.

        Bias and GELU are one node, which not every ONNX Runtime would make of two (1.17 to 1.20 do not).
        """
        product, bias = self._product(value, linear, f"{name}fc1", rows=rows)
        if bias and activation == "gelu":
            return self.graph.node("BiasGelu", [product, bias], f"{name}activation", domain="com.microsoft")
        product = self.graph.node("Add", [product, bias], f"{name}fc1") if bias else product
        return add_activation(self.graph, product, activation, f"{name}activation")

    def _product(self, value: str, linear: Linear, name: str, *, rows: int) -> tuple[str, str]:
        """Add the GEMM with the weights; also gives the bias that is still to be added, if any."""
        graph, file = self.graph, self.file
        graph.flops += 2 * rows * linear.weight.size
        bias = graph.constant(f"{name}_bias", linear.bias, file) if linear.bias.any() else ""
        if self.precision == "int8":
            levels, scale = quantize_weight(linear.weight)
            inputs = [value, graph.constant(f"{name}_weight", levels, file)]
            inputs += [graph.constant(f"{name}_weight_scale", scale, file), "", bias]
            return graph.node("DynamicQuantizeMatMul", inputs, name, domain="com.microsoft"), ""
        weight = np.ascontiguousarray(linear.weight.T)
        if self.precision == "fp16":
            stored = self.widened(graph.constant(f"{name}_weight", weight.astype(np.float16), file))
        else:
            stored = graph.constant(f"{name}_weight", weight, file)
        return graph.node("MatMul", [value, stored], f"{name}_product"), bias

    def widened(self, value: str) -> str:
        """Cast a stored value to float32."""
        return self.graph.node("Cast", [value], f"{value}_float", to=TensorProto.FLOAT)

    def rows_of(self, table: np.ndarray, index: str, name: str) -> str:
        """Gather rows of a table and widen them afterwards, so that the table stays mapped as it lies."""
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
    length = graph.node("Shape", [tokens], "length", start=1)
    x = graph.node("Add", [x, _positions(writer, tower, length)], "embedded")
    mask = _mask(graph, length)
    for number, block in enumerate(tower.blocks, start=1):
        x = _add_block(writer, x, block, tower.activation, mask, f"block_{number:02d}/")
    narrow = graph.node("Cast", [tokens], "tokens_narrow", to=TensorProto.INT32)  # ArgMax of int64 is new in 1.20
    last = graph.node("ArgMax", [narrow], "end_of_text", axis=1, keepdims=1)
    x = graph.node("GatherND", [x, last], "text_token", batch_dims=1)
    x = add_norm(graph, file, x, tower.norm_final, "norm_final")
    x = writer.linear(x, tower.projection, "projection", rows=1)
    unit = graph.node("LpNormalization", [x], "unit", axis=-1, p=2)
    graph.output(unit, "embedding", TensorProto.FLOAT, ["texts", tower.embed_dim])
    return graph, file


def _positions(writer: _Writer, tower: TextTower, length: str) -> str:
    """Slice the first `length` positions, (length, width)."""
    graph = writer.graph
    table = graph.constant("positions", tower.positions, writer.file)
    begin, axis = (graph.constant(name, np.array([0], np.int64)) for name in ("first_position", "axis_positions"))
    return graph.node("Slice", [table, begin, length, axis], "positions_of_length")


def _mask(graph: GraphBuilder, length: str) -> str:
    """Add the causal mask, (length, length) float32: 0 where a row may look, the lowest number at later tokens."""
    square = graph.node("Concat", [length, length], "mask_shape", axis=0)
    lowest = numpy_helper.from_array(np.array([np.finfo(np.float32).min]))
    full = graph.node("ConstantOfShape", [square], "mask_full", value=lowest)
    return graph.node("Trilu", [full, graph.constant("next_token", np.int64(1))], "mask", upper=1)


def _add_block(writer: _Writer, x: str, block: Block, activation: Activation, mask: str, p: str) -> str:
    """Add one block with causal attention, (texts, length, width) to the same."""
    graph, rows = writer.graph, writer.length
    attention = block.attention
    width, heads = attention.query.weight.shape[0], attention.heads
    normed = add_norm(graph, writer.file, x, block.norm_1, f"{p}norm_1")
    layers = (("query", attention.query), ("key", attention.key), ("value", attention.value))
    q, k, v = (
        add_transpose(
            graph,
            add_reshape(
                graph, writer.linear(normed, layer, f"{p}{name}", rows=rows), (0, 0, heads, -1), f"{p}{name}_4d"
            ),
            (0, 2, 3, 1) if name == "key" else HEADS_LAST,
            f"{p}{name}_heads",
        )
        for name, layer in layers
    )
    weights = add_weights(graph, q, k, channels=width // heads, name=f"{p}attention", mask=mask)
    attended = add_transpose(graph, graph.node("MatMul", [weights, v], f"{p}attention"), HEADS_LAST, f"{p}attention_4d")
    attended = add_reshape(graph, attended, (0, 0, width), f"{p}attention_flat")
    graph.flops += 4 * rows * rows * width
    x = graph.node("Add", [x, writer.linear(attended, attention.out, f"{p}out", rows=rows)], f"{p}residual_1")
    normed = add_norm(graph, writer.file, x, block.norm_2, f"{p}norm_2")
    hidden = writer.hidden(normed, block.mlp.fc1, activation, p, rows=rows)
    update = writer.linear(hidden, block.mlp.fc2, f"{p}fc2", rows=rows)
    return graph.node("Add", [x, update], f"{p}residual_2")


def operators_of_text(tower: TextTower, precision: TextPrecision) -> dict[str, int]:
    """Count what ONNX Runtime must run for the text tower after fusion, by operator name."""
    blocks = len(tower.blocks)
    gemms = 6 * blocks + 1
    counts = {"Cast": 1, "ArgMax": 1, "Shape": 1, "Slice": 1, "Gather": 1, "GatherND": 1, "LpNormalization": 1}
    counts |= {"Concat": 1, "ConstantOfShape": 1, "Trilu": 1}  # the mask
    counts |= {"FusedMatMul": blocks, "Softmax": blocks, "Transpose": 4 * blocks, "Reshape": 4 * blocks}
    counts |= {"LayerNormalization": 2 * blocks + 1, "Add": 3 * blocks + 1, "MatMul": blocks}
    activation = "Gelu" if tower.activation == "gelu" else "QuickGelu"
    if precision == "int8":
        return counts | {"Gather": 2, "Cast": 2, "Mul": 1, "DynamicQuantizeMatMul": gemms, activation: blocks}
    counts["MatMul"] += gemms
    counts["Cast"] += precision == "fp16"
    attention = [(b.attention.query, b.attention.key, b.attention.value, b.attention.out) for b in tower.blocks]
    linears = [tower.projection, *(layer for layers in attention for layer in layers)]
    linears += [layer for block in tower.blocks for layer in (block.mlp.fc1, block.mlp.fc2)]
    biases = sum(int(linear.bias.any()) for linear in linears)
    fused = sum(int(block.mlp.fc1.bias.any()) for block in tower.blocks) if activation == "Gelu" else 0
    counts["Add"] += biases - fused
    counts |= {"BiasGelu": fused} if fused else {}
    return counts | ({activation: blocks - fused} if blocks > fused else {})
