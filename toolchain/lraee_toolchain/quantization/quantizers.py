"""Quantize a tower to INT8: `naive` by ranges alone, `strong` by a GPTQ and SmoothQuant search for each block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import block_names
from lraee.bundle.strict_json import read_json, write_json
from lraee_exporters.graphs.block import BlockForm, BlockWeights, build_block, quantize_block
from lraee_exporters.graphs.stem import build_stem
from lraee_exporters.graphs.tail import float_tail, quantize_tail
from lraee_exporters.int8.linear import ALL_LEVELS, SMALL_INPUTS, SMALL_WEIGHTS, ActivationRange
from lraee_exporters.tower import Tower
from lraee_toolchain.array_file import scratch_array
from lraee_toolchain.parts.build import save_tower_parts
from lraee_toolchain.parts.runner import Chain, batches, run_part
from lraee_toolchain.parts.saved_weights import TowerWeights, save_weights
from lraee_toolchain.quantization.block_search import quantize_block_strongly
from lraee_toolchain.quantization.tail_search import quantize_tail_strongly


def build_int8(tower: Tower, ranges: Mapping[str, ActivationRange], folder: Path, *, saturation: bool = True) -> None:
    """Write the INT8 parts by rounding to nearest within the given ranges (the `naive` quantizer), and their weights.

    Args:
        tower: float weights.
        ranges: of every quantized value, by ``block_NN/<input>`` and ``tail/<input>``.
        folder: empty.
        saturation: whether products may saturate; where not, all weights have fewer levels.
    """
    if not saturation:
        ranges = {key: replace(value, levels=SMALL_WEIGHTS) for key, value in ranges.items()}
    blocks = []
    for name, block in zip(block_names(tower.depth), tower.blocks, strict=True):
        own = {key.removeprefix(f"{name}/"): value for key, value in ranges.items() if key.startswith(f"{name}/")}
        blocks.append(quantize_block(block, tower.activation, own))
    of_tail = {key.removeprefix("tail/"): value for key, value in ranges.items() if key.startswith("tail/")}
    tail = quantize_tail(float_tail(tower), of_tail)
    save_tower_parts(tower, blocks, tail, folder, quantized=True)
    save_weights(TowerWeights(blocks=blocks, tail=tail), folder)


def build_int8_strong(
    tower: Tower,
    chain: Chain,
    pixels: NDArray[np.uint8],
    folder: Path,
    *,
    saturation: bool = True,
    advance: Callable[[int], None],
) -> None:
    """Write the INT8 parts of the `strong` quantizer, their weights, and ``choices.json``, the recipe of each part.

    Args:
        tower: float weights.
        chain: its float parts, which give the targets.
        pixels: (images, size, size, 3) uint8 calibration images.
        folder: empty; meanwhile its disk holds two arrays of ``4 * images * tokens * width`` bytes.
        saturation: whether products may saturate; see `lraee_exporters.int8.linear.Levels`.
        advance: called after each block.
    """
    rest = ALL_LEVELS if saturation else SMALL_WEIGHTS
    levels = (ALL_LEVELS,) if saturation else (SMALL_WEIGHTS, SMALL_INPUTS)
    stem, stem_file = build_stem(tower, quantized=True, levels=rest)
    shape = len(pixels), tower.tokens, tower.width
    tokens, target = (scratch_array(folder, np.float32, shape) for _ in range(2))
    _fill(tokens, run_part(stem, stem_file, "pixels", batches(pixels)))
    _fill(target, map(chain.stem, batches(pixels)))
    blocks: list[BlockWeights] = []
    choices: dict[str, str] = {}
    errors: dict[str, dict[str, float]] = {}
    for name, block in zip(block_names(tower.depth), tower.blocks, strict=True):
        _fill(target, (chain.run_block(name, batch) for batch in batches(target)))
        chain.drop(name)
        weights, recipe, errors[name] = quantize_block_strongly(block, tower.activation, tokens, target, folder, levels)
        blocks.append(weights)
        choices[name] = str(recipe)
        graph, file = build_block(weights, BlockForm(token_count=tower.tokens), number=len(blocks))
        _fill(tokens, run_part(graph, file, "tokens", batches(tokens)))
        advance(1)
    tail, choices["tail"] = quantize_tail_strongly(float_tail(tower), tokens, rest)
    save_tower_parts(tower, blocks, tail, folder, quantized=True)
    save_weights(TowerWeights(blocks=blocks, tail=tail), folder)
    write_json(choices, folder / "choices.json")
    write_json(errors, folder / "errors.json")


def _fill(array: NDArray[np.float32], parts: Iterable[NDArray[np.float32]]) -> None:
    """Write rows into an array, one part after the other; a part may be made from the rows that it replaces."""
    start = 0
    for part in parts:
        array[start : start + len(part)] = part
        start += len(part)


def load_choices(folder: Path) -> dict[str, str]:
    """Read the recipe of each part that `build_int8_strong` wrote; empty for the naive quantizer."""
    path = folder / "choices.json"
    return read_json(dict[str, str], path) if path.is_file() else {}
