"""How images are read, as far as the device decides it and not the bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lraee.checks import check_count
from lraee.errors import ImageError

Resizer = Literal["auto", "pillow", "onnx", "numpy"]

MAX_PIXELS = 89_478_485
"""Of an image, unless set otherwise: Pillow's own default, 256 MiB at three bytes a pixel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Settings of everything between an image's file, bytes or array and the model's square of pixels.

    The defaults give what open_clip gives.

    Raises:
        ImageError: a field is out of its range.
    """

    exif_orientation: bool = False
    """Turn photos as their EXIF tag says. Off by default, because open_clip does not."""
    max_pixels: int = MAX_PIXELS
    """Images with more pixels are refused before they are decoded. A decoded image takes 3 to 16 bytes a pixel, so
    small boards should set less. Pillow's own `PIL.Image.MAX_IMAGE_PIXELS` holds as well."""
    reduce_jpeg: bool = False
    """Decode JPEGs at 1/2, 1/4 or 1/8 of their size where at least twice the model's size is left: faster for large
    photos, and not quite the same pixels. Pillow resizes what it has so decoded."""
    resize: Resizer = "auto"
    """Who resizes. ``pillow``; ``numpy``: the same pixels without Pillow, slower; ``onnx``: bicubic only, faster than
    ``numpy``, 1 level apart in 1 of 10,000 values. ``auto``: Pillow where it is installed, else ``onnx`` for bicubic
    and ``numpy`` for the rest."""

    def __post_init__(self) -> None:
        check_count("max_pixels", self.max_pixels, ImageError)
        if self.resize not in get_args(Resizer):
            raise ImageError(f"resize is {self.resize!r}, wanted one of {', '.join(get_args(Resizer))}")


PLAIN_READING = Reading()
"""What open_clip does."""
