"""The strong quantizer: search SmoothQuant, ranges, GPTQ and bias correction for each block by its measured error.

For each block, in order, on the tokens that the INT8 blocks before it really give: SmoothQuant (or not, with alpha
searched), activation ranges (min-max, percentile or least squared error), weight rounding (to nearest, or
compensating), and biases corrected for the mean error. One thing is decided after the other, each by running the
candidate as ONNX and measuring the error of the block's output on images that the candidate was not made from. The
fused graph is the same as for the naive quantizer: nothing here costs time on the device.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.block import (
    QUANTIZED_INPUTS,
    READS,
    BlockForm,
    BlockWeights,
    Layer,
    build_block,
    float_block,
    with_layers,
)
from lraee_exporters.int8.gptq import round_with_gptq
from lraee_exporters.int8.linear import (
    ALL_LEVELS,
    ActivationRange,
    Levels,
    QuantizedLinear,
    quantize_bias,
    quantize_linear,
    quantize_weight,
)
from lraee_exporters.int8.smooth_quant import smooth
from lraee_exporters.tower import Activation, Block, FloatArray, Linear
from lraee_toolchain.array_file import scratch_array
from lraee_toolchain.parts.runner import BATCH, run_part
from lraee_toolchain.quantization.ranges import RangeCollector, least_error_range

Rows: TypeAlias = npt.NDArray[np.int64]
"""Numbers of images."""

ALPHAS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
ROWS = 1024
"""Rows of a sample that are rounded together; bounds memory."""

HELD_OUT = 4
"""Every fourth calibration image measures candidates; the others make them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Describes how one block is quantized."""

    alpha: float | None = None
    """SmoothQuant's alpha; None leaves the block as it is."""
    ranges: Literal["minmax", "percentile", "least-error"] = "minmax"
    rounding: Literal["nearest", "compensating"] = "nearest"
    corrected: bool = False
    """Whether biases make up for the mean error of each layer."""
    levels: Levels = ALL_LEVELS
    """Of all inputs and weights."""

    def __str__(self) -> str:
        smoothing = "no smoothing" if self.alpha is None else f"smoothing {self.alpha:g}"
        bias = "corrected" if self.corrected else "plain"
        found = f"{smoothing}, ranges {self.ranges}, rounding {self.rounding}, bias {bias}"
        return found if self.levels == ALL_LEVELS else f"{found}, {levels_words(self.levels)}"


def levels_words(levels: Levels) -> str:
    """Say which of inputs and weights have fewer levels than 8 bits hold.

    >>> levels_words(SMALL_WEIGHTS), levels_words(SMALL_INPUTS)
    ('weights within 64', 'inputs within 127')
    """
    if levels.weights < ALL_LEVELS.weights:
        return f"weights within {levels.weights}"
    return f"inputs within {levels.inputs}"


@dataclass(slots=True)
class Observed:
    """Holds statistics of one quantized input over the calibration images."""

    collector: RangeCollector
    sample: FloatArray
    """(rows, channels), a thinned-out copy for ranges, Hessians and means, on disk where it is large."""
    largest: FloatArray
    """(channels,) largest magnitude."""


def observe(
    block: BlockWeights, tokens: FloatArray, images: Rows, folder: Path, *, rows: int = 8192
) -> dict[str, Observed]:
    """Run a float block and collect its quantized inputs, by name.

    Args:
        block: float weights.
        tokens: (all images, tokens, width), which may be memory-mapped.
        images: which of them to run.
        folder: for the graph and the samples.
        rows: size of the samples, less than twice that.
    """
    graph, file = build_block(block, BlockForm(token_count=tokens.shape[1]), number=1, observe=True)
    file.save(folder)
    session = make_session(graph.save(folder), SessionSettings())
    names = [f"observed_{name}" for name in QUANTIZED_INPUTS]
    every = max(1, len(images) * tokens.shape[1] // rows)
    parts = range(0, len(images), BATCH)
    counts = [len(range(start % every, len(images[start : start + BATCH]) * tokens.shape[1], every)) for start in parts]
    samples: dict[str, FloatArray] = {}
    collectors = {name: RangeCollector() for name in QUANTIZED_INPUTS}
    largest: dict[str, FloatArray] = {}
    for start, filled, count in zip(parts, np.cumsum([0, *counts]), counts, strict=False):
        values = session.run(names, {"tokens": tokens[images[start : start + BATCH]]})
        for name, value in zip(QUANTIZED_INPUTS, values, strict=True):
            collectors[name].add(value)
            peak = np.abs(value).max(axis=0)
            largest[name] = np.maximum(largest[name], peak) if name in largest else peak
            if name not in samples:
                samples[name] = np.asarray(scratch_array(folder, np.float32, (sum(counts), value.shape[1])))
            samples[name][filled : filled + count] = value[start % every :: every]
    return {name: Observed(collectors[name], samples[name], largest[name]) for name in QUANTIZED_INPUTS}


def quantize_block_strongly(
    block: Block,
    activation: Activation,
    tokens: FloatArray,
    target: FloatArray,
    folder: Path,
    choices: Sequence[Levels] = (ALL_LEVELS,),
) -> tuple[BlockWeights, Recipe, dict[str, float]]:
    """Find the recipe with the least output error for one block.

    Args:
        block: float weights.
        activation: the tower's activation.
        tokens: (images, tokens, width) what the INT8 blocks before it give; may be memory-mapped, as `target`.
        target: (images, tokens, width) what this block gives in the float tower.
        folder: for what lies on disk meanwhile.
        choices: levels of which the best are taken.

    Returns:
        The INT8 block, its recipe, and the mean squared error of every recipe tried, by its text.
    """
    numbers = np.arange(len(tokens))
    making, held_out = numbers[numbers % HELD_OUT != 0], numbers[numbers % HELD_OUT == 0]
    errors: dict[str, float] = {}
    built: dict[Recipe, BlockWeights] = {}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        bases: dict[float | None, tuple[BlockWeights, dict[str, Observed]]] = {}

        def base(alpha: float | None) -> tuple[BlockWeights, dict[str, Observed]]:
            if alpha not in bases:
                plain = float_block(block, activation)
                if alpha is not None:
                    plain = smooth_block(plain, base(None)[1], alpha)
                    for other in bases.keys() - {None}:  # samples of every alpha would take a gigabyte
                        del bases[other]
                bases[alpha] = plain, observe(plain, tokens, making, scratch)
            return bases[alpha]

        def error(recipe: Recipe) -> float:
            if recipe not in built:
                float_weights, observed = base(recipe.alpha)
                built[recipe] = apply_recipe(float_weights, observed, recipe, scratch)
                errors[str(recipe)] = _error(built[recipe], tokens, target, held_out)
            return errors[str(recipe)]

        best = _least(error, [Recipe(alpha=alpha, levels=levels) for alpha in (None, *ALPHAS) for levels in choices])
        best = _least(error, [best, replace(best, ranges="percentile"), replace(best, ranges="least-error")])
        best = _least(error, [best, replace(best, rounding="compensating")])
        best = _least(error, [best, replace(best, corrected=True)])
    return built[best], best, errors


def _least(error: Callable[[Recipe], float], recipes: list[Recipe]) -> Recipe:
    return min(recipes, key=error)


def smooth_block(block: BlockWeights, observed: Mapping[str, Observed], alpha: float) -> BlockWeights:
    """Apply SmoothQuant to both LayerNorms of a float block."""
    norm_1, (query, key, value) = smooth(
        block.norm_1, _floats(block, "query", "key", "value"), observed["norm_1"].largest, alpha
    )
    norm_2, (fc1,) = smooth(block.norm_2, _floats(block, "fc1"), observed["norm_2"].largest, alpha)
    return replace(block, norm_1=norm_1, query=query, key=key, value=value, norm_2=norm_2, fc1=fc1)


def apply_recipe(block: BlockWeights, observed: Mapping[str, Observed], recipe: Recipe, folder: Path) -> BlockWeights:
    """Quantize the six layers of a float block, smoothed if the recipe says so; `folder` as in `dequantized`."""
    ranges = {name: chosen_range(observed[name], recipe.ranges, recipe.levels) for name in QUANTIZED_INPUTS}
    hessians: dict[str, npt.NDArray[np.float64]] = {}
    layers: dict[Layer, QuantizedLinear] = {}
    for layer, reads in READS.items():
        (linear,) = _floats(block, layer)
        if recipe.rounding == "compensating" and reads not in hessians:
            seen = dequantized(observed[reads].sample, ranges[reads], folder, np.float64)
            hessians[reads] = seen.T @ seen
        sample, hessian = observed[reads].sample, hessians.get(reads)
        layers[layer] = quantize_layer(
            linear, sample, ranges[reads], hessian=hessian, corrected=recipe.corrected, folder=folder
        )
    return with_layers(block, layers)


def quantize_layer(
    linear: Linear,
    sample: FloatArray,
    activation: ActivationRange,
    *,
    hessian: npt.NDArray[np.float64] | None,
    corrected: bool,
    folder: Path | None = None,
) -> QuantizedLinear:
    """Quantize one layer to INT8.

    Args:
        linear: float layer.
        sample: (rows, in) its float inputs.
        activation: range of the input.
        hessian: for compensating rounding; None rounds to nearest.
        corrected: move the bias by the mean output error over the sample.
        folder: as in `dequantized`.
    """
    quantized = quantize_linear(linear, activation)
    if hessian is not None:
        _, scale = quantize_weight(linear.weight, levels=activation.levels)
        quantized = replace(quantized, weight=round_with_gptq(linear.weight, scale, hessian, activation.levels))
    if corrected:
        wanted = sample.mean(axis=0, dtype=np.float64) @ linear.weight.T.astype(np.float64)
        mean_seen = dequantized(sample, activation, folder).mean(axis=0, dtype=np.float64)
        bias = linear.bias + wanted - mean_seen @ quantized.dequantized().T
        quantized = replace(
            quantized, bias=quantize_bias(bias.astype(np.float32), activation.scale, quantized.weight_scale)
        )
    return quantized


def chosen_range(observed: Observed, method: str, levels: Levels = ALL_LEVELS) -> ActivationRange:
    """Find the range of one input by one method."""
    if method == "least-error":
        return least_error_range(observed.sample, levels=levels)
    collector = observed.collector
    return replace(collector.minmax() if method == "minmax" else collector.percentile(99.99), levels=levels)


def dequantized(
    values: FloatArray, activation: ActivationRange, folder: Path | None = None, dtype: npt.DTypeLike = np.float32
) -> npt.NDArray[Any]:
    """Round float values to the levels of a range, as the kernel sees them.

    Args:
        values: (rows, channels).
        activation: the range.
        folder: where the result lies if it is large; None keeps it in memory.
        dtype: of the result, whose values are float32.
    """
    found = np.asarray(scratch_array(folder, dtype, values.shape))
    for start in range(0, len(values), ROWS):
        piece = slice(start, start + ROWS)
        levels = np.clip(
            np.rint(values[piece] / np.float32(activation.scale)) + activation.zero_point, 0, activation.levels.inputs
        )
        found[piece] = np.asarray((levels - activation.zero_point) * np.float32(activation.scale), np.float32)
    return found


def _floats(block: BlockWeights, *names: Layer) -> list[Linear]:
    layers = [getattr(block, name) for name in names]
    assert all(isinstance(layer, Linear) for layer in layers)
    return layers


def _error(block: BlockWeights, tokens: FloatArray, target: FloatArray, images: Rows) -> float:
    """Compute the mean squared error of a block's output on some images, added up batch by batch."""
    graph, file = build_block(block, BlockForm(token_count=tokens.shape[1]), number=1)
    parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    outputs = run_part(graph, file, "tokens", (tokens[part] for part in parts))
    sums = [np.square(out - target[part], dtype=np.float64).sum() for out, part in zip(outputs, parts, strict=True)]
    return float(np.sum(sums) / (len(images) * math.prod(target.shape[1:])))
