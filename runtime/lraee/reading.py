"""Holds the settings by which a device, and not the bundle, decides how images are read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from reprlib import repr as short
from typing import Literal, TypeAlias, get_args

from lraee.checks import check_count, is_count
from lraee.errors import ImageError

Color: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255 each."""

Resizer = Literal["auto", "pillow", "onnx", "numpy"]

MAX_PIXELS = 89_478_485
"""Of an image, unless set otherwise: Pillow's own default, 256 MiB at three bytes a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Holds the settings between an image's file, bytes or array and the model's square of pixels.

    The defaults give what open_clip gives.

    Raises:
        ImageError: a field is out of its range.
    """

    exif_orientation: bool = False
    """Turn photos as their EXIF tag says. Off by default, because open_clip does not."""
    max_pixels: int = MAX_PIXELS
    """Images with more pixels are refused before they are decoded. A decoded image takes 3 to 16 bytes a pixel, so
    small boards should set less. This limit alone decides: Pillow's own, `PIL.Image.MAX_IMAGE_PIXELS`, is neither
    changed nor asked, except for images inside icons, tiles of a TIFF and frames of a WebP, where Pillow asks it."""
    reduce_jpeg: bool = False
    """Decode JPEGs at 1/2, 1/4 or 1/8 of their size where at least twice the model's size is left: faster for large
    photos, and not quite the same pixels. Pillow then resizes the picture."""
    resize: Resizer = "auto"
    """The resizer. ``pillow``; ``numpy``: the same pixels without Pillow, slower; ``onnx``: bicubic only, faster than
    ``numpy``, 1 level apart in 1 of 10,000 values. ``auto``: Pillow where it is installed, else ``onnx`` for bicubic
    and ``numpy`` for the rest. Pictures that are neither RGB nor grey are always resized by Pillow, which decoded
    them."""
    background: Color | None = None
    """RGB that is put under transparent pixels, such as ``(255, 255, 255)`` for white. None drops alpha as open_clip
    does: then the colours show that are stored under the transparency, often black."""

    def __post_init__(self) -> None:
        check_count("max_pixels", self.max_pixels, ImageError)
        if self.resize not in get_args(Resizer):
            raise ImageError(f"resize is {short(self.resize)}, wanted one of {', '.join(get_args(Resizer))}")
        if self.background is not None and not _is_color(self.background):
            raise ImageError(
                f"background is {short(self.background)}, wanted None or red, green and blue of 0 to 255, such as "
                "(255, 255, 255)"
            )


def parse_color(text: str) -> Color:
    """Parse a colour as it is typed: ``white``, ``black``, or red, green and blue in hexadecimal.

    >>> parse_color("#ff8000")
    (255, 128, 0)

    Raises:
        ImageError: it is none of these.
    """
    names = {"white": "#ffffff", "black": "#000000"}
    found = re.fullmatch(r"#?([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})", names.get(text.lower(), text.lower()))
    if found is None:
        raise ImageError(f"the background is {short(text)}, wanted white, black, or a colour such as #ff8000")
    red, green, blue = (int(level, 16) for level in found.groups())
    return red, green, blue


def _is_color(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(is_count(level, 0, 255) for level in value)


PLAIN_READING = Reading()
"""The settings that give what open_clip gives."""
