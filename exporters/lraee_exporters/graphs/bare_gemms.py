"""Builds a graph of the tower's GEMMs alone: a lower bound on the latency of the tower.

Every GEMM of ``graph.onnx`` is taken with its weights, in order, and reads a graph input instead of the layer before.
Quantized layers read uint8 values; nothing is quantized, normalised or added. Layers of equal shape share one input.
The GEMMs keep their order, so that weights stream from memory as in the chain. Attention's two GEMMs have no weights
and are not in the graph.

Each result is a graph output, since ONNX Runtime would not run the GEMM otherwise; a caller may bind all of them to the
same few buffers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from lraee_exporters.graphs.builder import INLINE_BYTES

FLOOR_ROWS = ("patch_rows", "token_rows", "image_rows")
"""Symbolic first axis of an input: batch * patches for the stem, batch * tokens for blocks, batch for the tail and for
what the last block computes of the class token alone."""


def build_floor(whole: onnx.ModelProto) -> onnx.ModelProto:
    """Build the graph of bare GEMMs.

    Args:
        whole: ``graph.onnx`` or ``fp32.onnx`` with its weights loaded.

    Returns:
        Inputs ``<rows>_<channels>``, uint8 or float32 (rows, channels); outputs are the results, float32
        (rows, channels).
    """
    graph = whole.graph
    made_by = {output: node for node in graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    inputs: dict[str, onnx.ValueInfoProto] = {}
    outputs: list[onnx.ValueInfoProto] = []
    for gemm in (node for node in graph.node if node.op_type == "Gemm"):
        rows = _rows(gemm.output[0], made_by)
        channels, out_channels = _shape(gemm.input[1], made_by, weights)
        feed = made_by.get(gemm.input[0])
        quantized = feed is not None and feed.op_type == "DequantizeLinear"
        given = f"{rows}_{channels}"
        kind = TensorProto.UINT8 if quantized else TensorProto.FLOAT
        inputs.setdefault(given, helper.make_tensor_value_info(given, kind, [rows, channels]))
        product = onnx.NodeProto()
        product.CopyFrom(gemm)
        if quantized and feed is not None:
            dequantize = onnx.NodeProto()
            dequantize.CopyFrom(feed)
            dequantize.input[0], dequantize.output[0] = given, f"{gemm.output[0]}_given"
            dequantize.name = dequantize.output[0]
            nodes.append(dequantize)
            product.input[0] = dequantize.output[0]
        else:
            product.input[0] = given
        nodes += [made_by[name] for name in gemm.input[1:] if name in made_by]
        nodes.append(product)
        outputs.append(helper.make_tensor_value_info(gemm.output[0], TensorProto.FLOAT, [rows, out_channels]))
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    floor = helper.make_graph(_unique(nodes), "floor", list(inputs.values()), outputs, kept)
    return helper.make_model(
        floor, opset_imports=whole.opset_import, producer_name="lraee", ir_version=whole.ir_version
    )


def save_floor(model: onnx.ModelProto, folder: Path) -> None:
    """Write ``floor.onnx`` with its weights in ``floor.data``."""
    onnx.save_model(
        model, folder / "floor.onnx", save_as_external_data=True, location="floor.data", size_threshold=INLINE_BYTES
    )


OF_THE_CLASS_TOKEN = ("query", "out", "fc1", "fc2")
"""Layers of the last block that compute one row of each image, where it computes the class token alone."""


def _rows(product: str, made_by: Mapping[str, onnx.NodeProto]) -> str:
    part, _, layer = product.partition("/")
    if f"{part}/class_token" in made_by and layer in OF_THE_CLASS_TOKEN:
        return FLOOR_ROWS[2]
    return {"stem": FLOOR_ROWS[0], "tail": FLOOR_ROWS[2]}.get(part, FLOOR_ROWS[1])


def _shape(weight: str, made_by: dict[str, onnx.NodeProto], weights: dict[str, onnx.TensorProto]) -> tuple[int, int]:
    tensor = weights[weight if weight in weights else made_by[weight].input[0]]
    rows, columns = tensor.dims
    return rows, columns


def _unique(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Remove repeats, which come from weights that two layers share."""
    seen: set[str] = set()
    kept = []
    for node in nodes:
        if node.output[0] not in seen:
            seen.add(node.output[0])
            kept.append(node)
    return kept
