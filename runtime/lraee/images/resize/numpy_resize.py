"""Resizes with numpy alone and gives the pixels that Pillow gives, bit for bit.

Pillow resizes one axis, rounds to uint8, then the other. A value is a weighted sum of its neighbours in integers, with
weights of 22 bits; here one neighbour of all values is added at a time.

Source: Pillow, src/libImaging: Resample.c (precompute_coeffs, normalize_coeffs_8bpc), Geometry.c (ImagingScaleAffine).
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.preprocessing import Interpolation
from lraee.images.read import Pixels

WEIGHT_BITS = 22
"""Of the fraction of a weight; sums of weight times level then fit into 32 bits."""

Filter = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def resize(pixels: Pixels, width: int, height: int, interpolation: Interpolation) -> Pixels:
    """Resize uint8 pixels (height, width, 3) with numpy."""
    rows, columns = pixels.shape[:2]
    if interpolation == "nearest":
        return pixels[_nearest(rows, height)[:, None], _nearest(columns, width)]
    if heights_first(pixels, width, height):
        return _resize_columns(_resize_rows(pixels, height, interpolation), width, interpolation)
    return _resize_rows(_resize_columns(pixels, width, interpolation), height, interpolation)


def resize_first(pixels: Pixels, width: int, height: int, interpolation: Interpolation) -> Pixels:
    """Resize only the axis that comes first, with any filter except `nearest`."""
    if heights_first(pixels, width, height):
        return _resize_rows(pixels, height, interpolation)
    return _resize_columns(pixels, width, interpolation)


def heights_first(pixels: Pixels, width: int, height: int) -> bool:
    """Tell whether Pillow resizes heights before widths: since version 13, where much more of the height is to go.

    Found by trying sizes; see also Pillow's pull request 9549. Until version 12 widths always came first, which gives
    other pixels of such tall images.
    """
    rows, columns = pixels.shape[:2]
    return bool(rows - height > 2 * max(columns - width, 0))


def _resize_columns(pixels: Pixels, count: int, interpolation: Interpolation) -> Pixels:
    """Resize the columns, (height, width, 3) to (height, count, 3)."""
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    return np.ascontiguousarray(_resize_rows(turned, count, interpolation).transpose(1, 0, 2))


def _resize_rows(pixels: Pixels, count: int, interpolation: Interpolation) -> Pixels:
    """Resize the rows, (height, width, 3) to (count, width, 3)."""
    if len(pixels) == count:
        return pixels
    rows = pixels.reshape(len(pixels), -1)
    first, weights = _weights(len(rows), count, interpolation)
    total = np.full((count, rows.shape[1]), 1 << (WEIGHT_BITS - 1), np.int32)  # one half, for rounding
    product = np.empty_like(total)
    for neighbour in range(weights.shape[1]):
        places = np.minimum(first + neighbour, len(rows) - 1)  # beyond the last row a weight is 0
        total += np.multiply(rows[places], weights[:, neighbour, None], out=product)
    total >>= WEIGHT_BITS
    return np.clip(total, 0, 255, out=total).astype(np.uint8).reshape(count, *pixels.shape[1:])


def _weights(length: int, count: int, interpolation: Interpolation) -> tuple[NDArray[np.intp], NDArray[np.int32]]:
    """Give the first neighbour of each value (count,), and the weights of it and the following ones (count, most)."""
    shape, reach = _FILTERS[interpolation]
    scale = length / count
    stretch = max(scale, 1.0)
    centre = (np.arange(count) + 0.5) * scale
    first = np.maximum((centre - reach * stretch + 0.5).astype(np.intp), 0)
    end = np.minimum((centre + reach * stretch + 0.5).astype(np.intp), length)
    steps = np.arange(int((end - first).max()))
    weights = shape((steps + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[steps >= (end - first)[:, None]] = 0.0
    sums = np.add.accumulate(weights, axis=1)[:, -1:]  # in Pillow's order: `sum` would add in pairs
    scaled = weights / sums * (1 << WEIGHT_BITS)
    return first, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)


def _nearest(length: int, count: int) -> NDArray[np.intp]:
    """Find the nearest neighbour of each of `count` values; steps are added up one by one, as Pillow does."""
    step = length / count
    steps = np.full(count, step)
    steps[0] = step * 0.5
    return np.minimum(np.add.accumulate(steps).astype(np.intp), length - 1)


def _bicubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute Keys' kernel with a = -0.5."""
    a, x = -0.5, np.abs(distance)
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _bilinear(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1.0 - np.abs(distance), 0.0)


_FILTERS: dict[str, tuple[Filter, float]] = {"bicubic": (_bicubic, 2.0), "bilinear": (_bilinear, 1.0)}
"""Kernel of each filter, and how far it reaches."""
