"""Resizes uint8 pixels as Pillow does, with Pillow or without.

Each way has a file. All filters are antialiased except `nearest`.

May import: bundle, errors, images, ort, reading.
"""

from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np

from lraee.bundle.preprocessing import Interpolation
from lraee.errors import ImageError
from lraee.images.colours import to_rgb
from lraee.images.read import Box, Pixels, pillow_is_installed
from lraee.images.resize import numpy_resize, onnx_resize, pillow_resize
from lraee.ort.sessions import global_thread_pool_is_set
from lraee.reading import Resizer

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Picture", "resize", "size_of"]

Picture: TypeAlias = Union[Pixels, "Image.Image"]
"""uint8 (height, width, 3), or a decoded Pillow image as `lraee.images.read.open_picture` gives it."""


def size_of(picture: Picture) -> tuple[int, int]:
    """Give the width and height of a picture in pixels."""
    return (picture.shape[1], picture.shape[0]) if isinstance(picture, np.ndarray) else picture.size


def resize(
    picture: Picture,
    width: int,
    height: int,
    interpolation: Interpolation,
    by: Resizer = "auto",
    *,
    box: Box | None = None,
) -> Pixels:
    """Resize one image, by the way that `by` names.

    Args:
        picture: pixels or a Pillow image.
        width: wanted, in pixels.
        height: wanted, in pixels.
        interpolation: Pillow's filter of that name.
        by: see `lraee.reading.Reading.resize`.
        box: resize this part of the picture; Pillow does it, whatever `by` says.

    Returns:
        uint8 (height, width, 3), RGB; an array that has that size already is returned as it is.

    Raises:
        ValueError: Pillow cannot convert the picture's mode to RGB.
        ImageError: `by` is ``onnx`` and the interpolation another than bicubic.
        MissingExtraError: `by` is ``pillow``, which is not installed.
    """
    if box is not None:
        return pillow_resize.resize(picture, width, height, interpolation, box=box)
    if size_of(picture) == (width, height):
        return _pixels(picture)
    if by == "auto":
        by = "pillow" if pillow_is_installed() else _without_pillow(interpolation)
    if by == "pillow" or not _is_rgb_or_grey(picture):
        return pillow_resize.resize(picture, width, height, interpolation)
    pixels = _pixels(picture)
    if by == "numpy":
        return numpy_resize.resize(pixels, width, height, interpolation)
    if interpolation != "bicubic":
        raise ImageError(
            f"resize='onnx' knows bicubic only and this bundle wants {interpolation}, which ONNX Runtime rounds "
            "unlike Pillow; use resize='numpy' or 'auto'"
        )
    return onnx_resize.resize_bicubic(pixels, width, height)


def _without_pillow(interpolation: Interpolation) -> Resizer:
    """Choose the fastest way that gives the right pixels and works in a forked process."""
    return "onnx" if interpolation == "bicubic" and not global_thread_pool_is_set() else "numpy"


def _is_rgb_or_grey(picture: Picture) -> bool:
    """Tell whether resizing in RGB gives the same as resizing in the picture's own mode."""
    return isinstance(picture, np.ndarray) or picture.mode in ("RGB", "L")


def _pixels(picture: Picture) -> Pixels:
    return picture if isinstance(picture, np.ndarray) else np.array(to_rgb(picture), dtype=np.uint8)
