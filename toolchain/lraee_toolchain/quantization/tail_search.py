"""The strong quantizer's tail: the projection of the class token, or the layers of an attention pool.

The projection's recipe is searched by the error of the direction of the embedding. A pool's layers work on one row for
each image; each gets the range of least squared error on what the INT8 blocks give.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.tail import TailWeights, build_tail, quantize_tail, quantized_inputs_of_tail
from lraee_exporters.int8.linear import ALL_LEVELS, Levels, QuantizedLinear
from lraee_exporters.int8.smooth_quant import smooth
from lraee_exporters.tower import FloatArray, LayerNorm, Linear
from lraee_toolchain.parts.runner import batches
from lraee_toolchain.quantization.block_search import (
    ALPHAS,
    Observed,
    Recipe,
    chosen_range,
    dequantized,
    quantize_layer,
)
from lraee_toolchain.quantization.ranges import RangeCollector, least_error_range


def quantize_tail_strongly(
    tail: TailWeights, tokens: FloatArray, levels: Levels = ALL_LEVELS
) -> tuple[TailWeights, str]:
    """Quantize a float tail by what it makes of the INT8 blocks' tokens.

    Args:
        tail: float weights.
        tokens: (images, tokens, width) after the last INT8 block.
        levels: of its inputs and weights.

    Returns:
        The tail in INT8 and the recipe's text.
    """
    if tail.pool is None:
        assert isinstance(tail.projection, Linear)
        norm, projection, recipe = quantize_projection_strongly(tail.norm_post, tail.projection, tokens[:, 0], levels)
        return replace(tail, norm_post=norm, projection=projection), recipe
    observed = _observe(tail, tokens)
    ranges = {name: least_error_range(values, levels=levels) for name, values in observed.items()}
    return quantize_tail(tail, ranges), str(Recipe(ranges="least-error", levels=levels))


def _observe(tail: TailWeights, tokens: FloatArray) -> dict[str, FloatArray]:
    """Collect the quantized inputs of a float tail, by name, each (images, channels)."""
    width = tokens.shape[2]
    embed_dim = tail.projection.weight.shape[0] if isinstance(tail.projection, Linear) else width
    graph, file = build_tail(tail, width=width, embed_dim=embed_dim, token_count=tokens.shape[1], observe=True)
    labels = {"label_matrix": np.eye(embed_dim, 2, dtype=np.float32), "logit_scale": np.array(1, np.float32)}
    names = list(quantized_inputs_of_tail(tail))
    with tempfile.TemporaryDirectory() as folder:
        file.save(Path(folder))
        session = make_session(graph.save(Path(folder)), SessionSettings())
        wanted = [f"observed_{name}" for name in names]
        rows = [session.run(wanted, {"tokens": batch, **labels}) for batch in batches(tokens)]
    return {name: np.concatenate(values) for name, values in zip(names, zip(*rows, strict=True), strict=True)}


def quantize_projection_strongly(
    norm: LayerNorm, projection: Linear, tokens: FloatArray, levels: Levels = ALL_LEVELS
) -> tuple[LayerNorm, QuantizedLinear, str]:
    """Search SmoothQuant and ranges for the tail's projection by the error of the embedding's direction.

    Args:
        norm: the LayerNorm before it.
        projection: float layer.
        tokens: (images, width) class tokens that the INT8 blocks give.
        levels: of inputs and weights.

    Returns:
        LayerNorm, INT8 layer, and the recipe's text.
    """
    centred = tokens - tokens.mean(axis=1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + norm.epsilon)
    wanted = (unit * norm.weight + norm.bias) @ projection.weight.T + projection.bias
    best: tuple[float, LayerNorm, QuantizedLinear, str] | None = None
    for alpha in (None, *ALPHAS):
        here, layer = norm, projection
        if alpha is not None:
            largest = np.abs(unit * norm.weight + norm.bias).max(axis=0)
            here, (layer,) = smooth(norm, [projection], largest, alpha)
        values = np.asarray(unit * here.weight + here.bias, np.float32)
        for ranges in ("minmax", "least-error"):
            collector = RangeCollector()
            collector.add(values)
            activation = chosen_range(Observed(collector, values, np.abs(values).max(axis=0)), ranges, levels)
            quantized = quantize_layer(layer, values, activation, hessian=None, corrected=False)
            output = dequantized(values, activation) @ quantized.dequantized().T + layer.bias
            cosine = (output * wanted).sum(axis=1) / np.linalg.norm(output, axis=1) / np.linalg.norm(wanted, axis=1)
            error = float(1 - cosine.mean())
            if best is None or error < best[0]:
                best = error, here, quantized, str(Recipe(alpha=alpha, ranges=ranges, levels=levels))
    assert best is not None
    return best[1], best[2], best[3]
