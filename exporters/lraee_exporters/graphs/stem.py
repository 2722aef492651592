"""Builds the stem as an ONNX part, from uint8 pixels to the tokens that block 1 reads.

The patch convolution has a stride equal to its kernel, so it is a GEMM of unfolded patches. Mean and
standard deviation of the preprocessing are folded into it, so the pixels themselves are the quantized activation
(scale 1, zero point 0): the stem quantizes nothing but its weights. Class embedding, positions and the rest of
the mean are one constant per token, added after a row for [CLS], where there is one, is padded in front.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from lraee_exporters.graphs.block import BlockWeights
from lraee_exporters.graphs.builder import GraphBuilder, WeightFile
from lraee_exporters.graphs.layers import AnyLinear, add_gemm, add_norm, add_reshape
from lraee_exporters.int8.linear import ALL_LEVELS, SMALL_WEIGHTS, Levels, QuantizedLinear, quantize_weight
from lraee_exporters.tower import Linear, Tower


def fold_patches(tower: Tower) -> tuple[Linear, np.ndarray]:
    """Fold ToTensor and Normalize into the patch kernel and the positions.

    Returns:
        The layer on patches of raw pixels, flattened as (patch row, patch column, colour), without a bias, and the
        (tokens, width) float32 constant that is added after it.
    """
    mean = np.asarray(tower.preprocessing.mean, np.float64)
    std = np.asarray(tower.preprocessing.std, np.float64)
    kernel = tower.patch_kernel.astype(np.float64) / std[None, :, None, None]
    shift = -(kernel * mean[None, :, None, None]).sum(axis=(1, 2, 3))
    if tower.patch_bias is not None:
        shift = shift + tower.patch_bias
    weight = (kernel / 255.0).transpose(0, 2, 3, 1).reshape(tower.width, -1)
    offset = tower.positions.astype(np.float64).copy()
    if tower.class_embedding is not None:
        offset[0] += tower.class_embedding
    offset[-tower.patches :] += shift
    linear = Linear(weight=weight.astype(np.float32), bias=np.zeros(tower.width, np.float32))
    return linear, offset.astype(np.float32)


def quantize_patches(linear: Linear, levels: Levels = ALL_LEVELS) -> QuantizedLinear:
    """Quantize the patch layer to INT8; its input, the pixels, is exact."""
    weight, scale = quantize_weight(linear.weight, levels=levels)
    return QuantizedLinear(weight=weight, weight_scale=scale, bias=None, input_scale=1.0, input_zero_point=0)


def add_stem(
    graph: GraphBuilder, file: WeightFile, pixels: str, tower: Tower, *, levels: Levels | None, prefix: str = ""
) -> str:
    """Add the stem of a tower to `graph`.

    Args:
        graph: where the nodes go.
        file: where the weights go.
        pixels: the (batch, image_size, image_size, 3) uint8 input, RGB.
        tower: gives patches, positions and the LayerNorm before block 1.
        levels: of INT8 patch weights; None leaves them in float32.
        prefix: put before every name, ending in "/".

    Returns:
        The (batch, tokens, width) float32 tokens.
    """
    p, side, grid = prefix, tower.patch_size, tower.grid
    folded, offset = fold_patches(tower)
    linear: AnyLinear = folded if levels is None else quantize_patches(folded, levels)
    x = add_reshape(graph, pixels, (-1, grid, side, grid, side * 3), f"{p}pixel_rows")
    x = graph.node("Transpose", [x], f"{p}pixel_patches", perm=[0, 1, 3, 2, 4])
    x = add_reshape(graph, x, (-1, side * side * 3), f"{p}patches_flat")
    if levels is not None:
        scale = graph.constant(f"{p}pixel_scale", np.float32(1.0))
        zero = graph.constant(f"{p}pixel_zero_point", np.uint8(0))
        x = graph.node("DequantizeLinear", [x, scale, zero], f"{p}pixels_dequantized")
    else:
        x = graph.node("Cast", [x], f"{p}pixels_float", to=TensorProto.FLOAT)
    x = add_gemm(graph, file, x, linear, f"{p}patches", rows=tower.patches)
    x = add_reshape(graph, x, (-1, tower.patches, tower.width), f"{p}patches_split")
    if tower.has_class_token:
        pads = graph.constant(f"{p}class_row", np.array([0, 1, 0, 0, 0, 0], np.int64))
        x = graph.node("Pad", [x, pads], f"{p}with_class_row")
    x = graph.node("Add", [x, graph.constant(f"{p}positions", offset, file)], f"{p}positioned")
    return x if tower.norm_pre is None else add_norm(graph, file, x, tower.norm_pre, f"{p}norm_pre")


def build_stem(tower: Tower, *, quantized: bool, levels: Levels = ALL_LEVELS) -> tuple[GraphBuilder, WeightFile]:
    """Build the part ``stem``: `pixels` uint8 (batch, size, size, 3) to `tokens_out` float32 (batch, tokens, width).

    Args:
        tower: gives patches, positions and the LayerNorm before block 1.
        quantized: INT8 patch weights instead of float32.
        levels: how finely they are rounded.
    """
    graph, file = GraphBuilder("stem"), WeightFile("stem.data")
    size = tower.image_size
    pixels = graph.input("pixels", TensorProto.UINT8, ["batch", size, size, 3])
    tokens = add_stem(graph, file, pixels, tower, levels=levels if quantized else None)
    graph.output(tokens, "tokens_out", TensorProto.FLOAT, ["batch", tower.tokens, tower.width])
    return graph, file


def levels_of_stem(blocks: Sequence[BlockWeights]) -> Levels:
    """Give the levels of the patch weights that suit these blocks: `SMALL_WEIGHTS` where no block saturates.

    Pixels have all 256 levels, so of the stem it is always the weights that have fewer.
    """
    return ALL_LEVELS if any(block.saturates for block in blocks) else SMALL_WEIGHTS


def operators_of_stem(tower: Tower, *, quantized: bool) -> dict[str, int]:
    """Count what ONNX Runtime must run for the stem after fusion, by operator name."""
    counts = {"Reshape": 3, "Transpose": 1, "Add": 1}
    if tower.has_class_token:
        counts["Pad"] = 1
    if tower.norm_pre is not None:
        counts["LayerNormalization"] = 1
    return counts | ({"QGemm": 1} if quantized else {"Gemm": 1, "Cast": 1})
