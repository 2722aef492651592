"""Dynamic INT8, the paper's quantization: weights are INT8, activations get their scale while the model runs.

A baseline for the static INT8 of `quantizers`, made by ONNX Runtime's own ``quantize_dynamic`` from the float
parts. Quantized are the linear layers of every block and the projection of the tail: int8 weights, symmetric, with a
scale for each output channel. The stem stays float, since its patch layer is a convolution in the model, and so do
both attention GEMMs and the cosine with the labels.

Weights keep all 8 bits (no ``reduce_range``): where uint8 x int8 GEMMs saturate, sessions already take ONNX
Runtime's exact kernel, which covers these operators too; see `lraee.ort.sessions`.

An activation's scale covers everything that runs together, so an image's embedding depends a little on the rest of its
batch.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.quant_utils import add_pre_process_metadata

from lraee.bundle.manifest import PartEntry
from lraee_exporters.graphs.builder import INLINE_BYTES
from lraee_exporters.graphs.fused_operators import optimized_operators
from lraee_toolchain.parts.build import load_parts, save_parts

NOT_QUANTIZED = ("stem",)
"""Parts that are copied as they are."""

FLOAT_PRODUCTS = ("pool_logits", "pool_heads")
"""Products of an attention pool's folded query and values, which static INT8 leaves float too; of the second, with one
matrix for each head, ONNX Runtime has no dynamic kernel."""

ONE_GRAPH = "graph"
"""Part that is left out: it would hold all weights a second time."""


def build_dynamic(float_parts: Path, folder: Path) -> None:
    """Write the dynamic INT8 parts, which `Chain` runs and `load_parts` lists.

    Args:
        float_parts: folder that `build_float` wrote.
        folder: empty.
    """
    entries = [part for part in load_parts(float_parts) if part.name != ONE_GRAPH]
    save_parts([_build_part(part, float_parts, folder) for part in entries], folder)
    for part in entries:  # of the last block also the form with all tokens, which `Chain` looks at
        if part.graph != f"{part.name}.onnx":
            _build_part(replace(part, graph=f"{part.name}.onnx"), float_parts, folder)


def _build_part(part: PartEntry, source: Path, folder: Path) -> PartEntry:
    if part.name in NOT_QUANTIZED:
        for name in filter(None, (part.graph, part.data)):
            shutil.copyfile(source / name, folder / name)
        return part
    path = folder / part.graph
    data = f"{path.stem}.data"
    _save(_quantize(onnx.load(source / part.graph)), path, data)
    return replace(part, data=data, operators=dict(sorted(optimized_operators(path).items())))


def _quantize(model: onnx.ModelProto) -> onnx.ModelProto:
    """Quantize every GEMM with constant weights to INT8; a Gemm becomes a MatMulInteger and an Add."""
    # The parts are built as they shall run. Without this mark a warning asks for a preparation that would change them.
    add_pre_process_metadata(model)
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.onnx"
        quantize_dynamic(
            model,
            path,
            op_types_to_quantize=["MatMul"],
            nodes_to_exclude=list(FLOAT_PRODUCTS),
            per_channel=True,
            weight_type=QuantType.QInt8,
            extra_options={
                "MatMulConstBOnly": True,
                "DefaultTensorType": TensorProto.FLOAT,  # onnx cannot infer it after QuickGelu
            },
        )
        return onnx.load(path)


def _save(model: onnx.ModelProto, path: Path, data: str) -> None:
    """Write a model with its large tensors in a file next to it."""
    onnx.save_model(
        model,
        path,
        save_as_external_data=True,
        location=data,
        size_threshold=INLINE_BYTES,
    )
