"""The stem computes patches, class token and positions from raw pixels, with the normalization folded in."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from lraee.images.preprocess import normalize
from lraee_exporters.graphs.stem import build_stem, fold_patches, quantize_patches
from lraee_exporters.tower import Tower

Array = npt.NDArray[Any]

VARIANTS = [
    pytest.param({}, id="plain"),
    pytest.param({"norm_pre": False}, id="no-norm-pre"),
    pytest.param({"patch_bias": True}, id="patch-bias"),
    pytest.param({"patch_bias": True, "norm_pre": False, "patch_size": 12}, id="patch-bias-no-norm-pre"),
]


def random_pixels(batch: int, size: int = 24) -> Array:
    """Draw uint8 pixels (batch, size, size, 3)."""
    return np.random.default_rng(3).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)


def tokens_by_definition(tower: Tower, pixels: Array) -> Array:
    """Normalize, convolve patch by patch, put the class token in front, add positions: float64."""
    images = normalize(pixels, tower.preprocessing).astype(np.float64)
    side, rows = tower.patch_size, []
    for top in range(0, tower.image_size, side):
        for left in range(0, tower.image_size, side):
            patch = images[:, :, top : top + side, left : left + side]
            rows.append(np.einsum("bchw,dchw->bd", patch, tower.patch_kernel.astype(np.float64)))
    patches = np.stack(rows, axis=1) + (0 if tower.patch_bias is None else tower.patch_bias)
    first = np.broadcast_to(tower.class_embedding, (len(pixels), 1, tower.width))
    x = np.concatenate([first, patches], axis=1) + tower.positions
    if tower.norm_pre is None:
        return x
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + tower.norm_pre.epsilon)
    return scaled * tower.norm_pre.weight + tower.norm_pre.bias


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_float_stem_computes_the_definition(
    variant: dict[str, Any], batch: int, make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """Tolerance: float32 sums of at most 432 products of size 1, and the folding divides by 255 beforehand."""
    tower, pixels = make_tower(**variant), random_pixels(batch)
    tokens = run_part(build_stem(tower, quantized=False), pixels=pixels)["tokens_out"]
    assert tokens.dtype == np.float32
    np.testing.assert_allclose(tokens, tokens_by_definition(tower, pixels), atol=2e-5)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("variant", VARIANTS)
def test_an_int8_stem_loses_only_the_rounding_of_its_weights(
    variant: dict[str, Any], batch: int, make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """Pixels are exact, so tokens are off by the rounding of weights to 1/127 of their channel's largest: below 3 %."""
    tower, pixels = make_tower(**variant), random_pixels(batch)
    tokens = run_part(build_stem(tower, quantized=True), pixels=pixels)["tokens_out"]
    expected = tokens_by_definition(tower, pixels)
    assert np.linalg.norm(tokens - expected) < 0.03 * np.linalg.norm(expected)


def test_an_int8_stem_equals_integer_arithmetic(
    make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """Levels times pixels are whole numbers, so only the last scaling and addition round."""
    tower, pixels = make_tower(norm_pre=False), random_pixels(2)
    folded, offset = fold_patches(tower)
    layer = quantize_patches(folded)
    grid, side = tower.grid, tower.patch_size
    patches = pixels.reshape(2, grid, side, grid, side, 3).transpose(0, 1, 3, 2, 4, 5).reshape(2, grid * grid, -1)
    products = patches.astype(np.int64) @ layer.weight.astype(np.int64) * layer.weight_scale.astype(np.float64)
    expected = np.concatenate([np.zeros((2, 1, tower.width)), products], axis=1) + offset
    tokens = run_part(build_stem(tower, quantized=True), pixels=pixels)["tokens_out"]
    np.testing.assert_allclose(tokens, expected, atol=1e-5)


def test_pixels_of_each_colour_and_position_reach_their_own_weight(
    make_tower: Callable[..., Tower], run_part: Callable[..., dict[str, Any]]
) -> None:
    """A kernel that reads one value of a patch alone finds exactly that value."""
    tower = make_tower(norm_pre=False, width=4, heads=1)
    kernel = np.zeros_like(tower.patch_kernel)
    places = [(0, 0, 0), (1, 2, 5), (2, 7, 1), (2, 7, 7)]  # colour, row, column
    for channel, place in enumerate(places):
        kernel[(channel, *place)] = 1
    tower.patch_kernel[:] = kernel
    pixels = random_pixels(1)
    tokens = run_part(build_stem(tower, quantized=False), pixels=pixels)["tokens_out"][0, 1:] - tower.positions[1:]
    images = normalize(pixels, tower.preprocessing)[0]
    for channel, (colour, row, column) in enumerate(places):
        np.testing.assert_allclose(tokens[:, channel], images[colour, row::8, column::8].ravel(), atol=1e-5)
