"""Brings pictures of every mode of Pillow to 8-bit RGB, in the order in which open_clip does it.

open_clip resizes a picture in the mode it has and converts it to RGB afterwards, without its alpha. The order matters:
of a palette Pillow takes the nearest entry, RGBA is weighted by alpha, and CMYK, YCbCr or LAB are interpolated as such.
So there are two steps here, `ready_to_resize` before and `to_rgb` after resizing. The first does what open_clip lacks:
16 bits are scaled to 8 instead of clipped, and transparent pixels are put on a background where one was chosen.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from lraee.errors import ImageError, ImageWarning
from lraee.reading import Color

if TYPE_CHECKING:
    from PIL import Image

_BITS_PER_SAMPLE = 258
"""TIFF tag."""

_WIDE_FORMATS = ("PNG", "PPM")
"""Formats whose mode I holds 16 bits: Pillow opens PNG so up to version 11, and scales PGM to the whole range."""

NEARLY_BLACK = 4095
"""A picture of 16 bits with no brighter value is read as 15 of 255 or less; probably it holds 12 bits or fewer."""


def bits_of_grey(image: Image.Image) -> int | None:
    """Tell how many bits a grey value has in the file of an opened image; None where that is unknown.

    This concerns modes I and I;16 alone: other modes, and pictures in memory, say it by their mode.
    """
    if image.mode.startswith("I;16"):
        return _tiff_bits(image) or 16
    if image.mode != "I":
        return None
    bits = 16 if image.format in _WIDE_FORMATS else _tiff_bits(image)
    return None if bits == 32 else bits


def ready_to_resize(image: Image.Image, name: str, bits: int | None, background: Color | None) -> Image.Image:
    """Bring a decoded picture to a mode that Pillow resizes and `to_rgb` converts.

    Args:
        image: a picture; it is not changed.
        name: what an error or a warning calls it.
        bits: of a grey value, see `bits_of_grey`.
        background: RGB under transparent pixels; None drops alpha, as open_clip does.

    Returns:
        The picture itself where nothing was to be done. 16 bits are scaled, 65535 becomes 255. Mode I without a value
        above 255 stays as it is, unless its file has 16 bits.

    Raises:
        ImageError: values of mode F, or of mode I beyond 16 bits, which have no agreed range.
    """
    from PIL import Image

    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        image = _in_8_bits(image, name, bits, keep_transparent=background is not None)
    elif image.mode in ("La", "PA"):  # Pillow converts no La to RGB, and would interpolate the indices of a PA
        image = image.convert({"La": "LA", "PA": "RGBA"}[image.mode])
    if background is None or not image.has_transparency_data:
        return image
    below = Image.new("RGBA", image.size, (*background, 255))
    return Image.alpha_composite(below, image.convert("RGBA")).convert("RGB")


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert a picture from `ready_to_resize` to RGB, dropping alpha; one that is RGB is returned itself.

    Raises:
        ValueError: Pillow cannot convert this mode.
    """
    if image.mode == "RGB":
        return image
    if isinstance(image.info.get("transparency"), bytes):  # Pillow would advise by a warning to convert to RGBA
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def _tiff_bits(image: Image.Image) -> int | None:
    tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
    bits = tags.get(_BITS_PER_SAMPLE) if tags is not None else None
    return int(bits[0]) if bits else None


def _in_8_bits(image: Image.Image, name: str, bits: int | None, *, keep_transparent: bool) -> Image.Image:
    """Scale grey of 9 to 16 bits to mode L, or LA where a value is transparent; mode I of 8 bits stays as it is."""
    from PIL import Image

    values = np.asarray(image)
    least, most = values.min(), values.max()
    if image.mode == "F" or least < 0 or most > 65535:
        raise ImageError(
            f"{name} cannot be converted to RGB: its mode {image.mode} holds values {least} to {most}, which have no "
            "agreed range; save the image with 8 or 16 bits"
        )
    if bits is None and most <= 255:
        return image
    bits = bits or 16
    if bits == 16 and 0 < most <= NEARLY_BLACK:
        warnings.warn(
            f"{name} is nearly black: its brightest grey is {most} of 65,535. If it holds fewer than 16 bits, "
            "multiply its values until the brightest is near 65,535",
            ImageWarning,
            stacklevel=2,
        )
    white = (1 << bits) - 1
    wide = values.astype(np.uint32)
    grey = Image.fromarray(((wide * 255 + white // 2) // white).astype(np.uint8))
    transparent = image.info.get("transparency")  # a PNG may declare one grey value as transparent
    if keep_transparent and isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(wide == transparent, 0, 255).astype(np.uint8)))
    return grey
