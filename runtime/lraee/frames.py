"""Turns what cameras deliver into uint8 RGB (height, width, 3), with numpy alone.

RGB frames need no conversion: `classify` takes them as they are.

>>> import numpy as np
>>> from_nv12(bytes([235] * 4 + [128] * 2), 2, 2).tolist()  # white: Y at its upper limit, no colour
[[[255, 255, 255], [255, 255, 255]], [[255, 255, 255], [255, 255, 255]]]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from lraee.checks import array_words, is_count
from lraee.errors import ImageError
from lraee.images.read import Pixels

Matrix = Literal["bt601", "bt709"]

Buffer: TypeAlias = bytes | bytearray | memoryview | NDArray[np.uint8]

_WEIGHTS: dict[str, tuple[float, float]] = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
"""How much of red and of blue is in Y; source: ITU-R BT.601-7 section 2.5.1 and BT.709-6 section 3.2."""

_FRACTION_BITS = 20
"""Of the integers that colours are computed with; sums fit into 32 bits."""


def from_bgr(frame: Pixels) -> Pixels:
    """Reverse the channels of a frame as OpenCV gives it.

    Args:
        frame: uint8 (height, width, 3), blue first.

    Returns:
        uint8 (height, width, 3), RGB, C-contiguous; a copy.

    Raises:
        ImageError: another type or shape.
    """
    frame = _checked(frame, lambda shape: len(shape) == 3 and shape[-1] == 3, "(height, width, 3)")
    return np.ascontiguousarray(frame[:, :, ::-1])


def from_grey(frame: Pixels) -> Pixels:
    """Repeat a grey frame in three channels.

    Args:
        frame: uint8 (height, width) or (height, width, 1).

    Returns:
        uint8 (height, width, 3), C-contiguous; a copy.

    Raises:
        ImageError: another type or shape.
    """
    frame = _checked(frame, lambda shape: len(shape) == 2 or (len(shape) == 3 and shape[-1] == 1), "(height, width)")
    return np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)


def from_nv12(
    buffer: Buffer,
    width: int,
    height: int,
    *,
    matrix: Matrix = "bt601",
    full_range: bool = False,
    stride: int | None = None,
) -> Pixels:
    """Convert a frame of NV12: a plane of Y, then one of U and V in turns at half the width and height.

    A pair of U and V counts for the four pixels it lies on, as in OpenCV.

    Args:
        buffer: `stride * height * 3 / 2` bytes.
        width: in pixels, even.
        height: in pixels, even.
        matrix: ``bt601`` as most cameras of small boards give, or ``bt709`` as most video in HD is.
        full_range: Y, U and V use 0..255 (as in JPEG), instead of 16..235 for Y and 16..240 for U and V.
        stride: bytes from one row to the next, where the driver pads rows; None for `width`.

    Returns:
        uint8 (height, width, 3), RGB, C-contiguous.

    Raises:
        ImageError: the sizes are odd or do not fit the buffer, or the matrix is unknown.
    """
    if matrix not in get_args(Matrix):
        raise ImageError(f"matrix is {matrix!r}, wanted one of {', '.join(get_args(Matrix))}")
    if not is_count(width, 2) or not is_count(height, 2) or width % 2 or height % 2:
        raise ImageError(f"the frame is {width} x {height}; NV12 has an even width and height")
    stride = width if stride is None else stride
    if not is_count(stride):
        raise ImageError(f"stride is {stride!r}, wanted bytes from one row to the next, or None")
    data = _bytes_of(buffer)
    wanted = stride * height * 3 // 2
    if stride < width or data.size != wanted:
        raise ImageError(
            f"the buffer has {data.size:,} bytes, wanted {wanted:,} for NV12 of {width} x {height} with a stride of "
            f"{stride}; give width and height of the frame, and the stride if rows are padded"
        )
    rows = data.reshape(height * 3 // 2, stride)[:, :width]
    return _to_rgb(rows[:height], rows[height:].reshape(height // 2, width // 2, 2), matrix, full_range)


def _bytes_of(buffer: Buffer) -> NDArray[np.uint8]:
    """View a buffer as a row of bytes; an array that is not contiguous is copied."""
    if isinstance(buffer, np.ndarray) and buffer.dtype == np.uint8:
        return buffer.reshape(-1)
    if isinstance(buffer, np.ndarray):
        raise ImageError(f"the buffer is {array_words(buffer)}; wanted bytes, or a uint8 array")
    try:
        return np.frombuffer(buffer, np.uint8)
    except (TypeError, ValueError, BufferError) as error:
        raise ImageError(
            f"the buffer is a {type(buffer).__name__} ({error}); wanted bytes, or a uint8 array"
        ) from error


def _to_rgb(luma: Pixels, chroma: Pixels, matrix: Matrix, full_range: bool) -> Pixels:
    """Convert luma (height, width) and chroma (height / 2, width / 2, 2) to RGB (height, width, 3).

    R = Y + 2 (1 - red) V,  B = Y + 2 (1 - blue) U,  G = (Y - red R - blue B) / (1 - red - blue), with Y in 0..1 and
    U, V in -0.5..0.5. Every term depends on one byte, so it is looked up.
    """
    red, blue = _WEIGHTS[matrix]
    green = 1.0 - red - blue
    levels = np.arange(256)
    brightness = _fixed(levels / 255 if full_range else (levels - 16) / 219)
    colour = (levels - 128) / (255 if full_range else 224)
    u, v = chroma[:, :, 0], chroma[:, :, 1]
    channels = (
        _fixed(2 * (1 - red) * colour)[v],
        _fixed(-2 * (1 - red) * red / green * colour)[v] + _fixed(-2 * (1 - blue) * blue / green * colour)[u],
        _fixed(2 * (1 - blue) * colour)[u],
    )
    rgb = np.empty((*luma.shape, 3), np.uint8)
    bright = brightness[luma] + (1 << (_FRACTION_BITS - 1))  # and one half, for rounding
    for number, channel in enumerate(channels):
        values = bright + channel.repeat(2, axis=0).repeat(2, axis=1)
        values >>= _FRACTION_BITS
        rgb[:, :, number] = np.clip(values, 0, 255, out=values)
    return rgb


def _fixed(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """Convert shares of full brightness to levels of 0..255 with a binary fraction."""
    return np.round(values * 255 * (1 << _FRACTION_BITS)).astype(np.int32)


def _checked(frame: object, fits: Callable[[tuple[int, ...]], bool], wanted: str) -> Pixels:
    if isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and fits(frame.shape) and frame.size > 0:
        return frame
    raise ImageError(f"the frame is {array_words(frame)}; wanted uint8 {wanted} with no empty axis")
