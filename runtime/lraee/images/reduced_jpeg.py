"""Decodes large JPEGs at 1/2, 1/4 or 1/8 of their size, which a decoder does for a fraction of the time.

The last column and row of such a picture may stand for less than a whole pixel, and its size alone does not tell the
size of the photo. Both would move the crop by up to a pixel, so they are remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from lraee.images.read import Box, ImageSource, open_picture
from lraee.reading import Reading

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112
"""EXIF tag."""

_MIRRORED = {2: (True, False), 3: (True, True), 4: (False, True), 6: (True, False), 7: (True, True), 8: (False, True)}
"""EXIF orientation: whether turning the picture brings its last column to the left, and its last row to the top."""

_TURNED = (5, 6, 7, 8)
"""EXIF orientations by which width and height change places."""


class Reduced(NamedTuple):
    """Holds a picture and the photo that it stands for."""

    picture: Image.Image
    """As `open_picture` gives it, of the photo's size or less."""
    size: tuple[int, int]
    """Width and height of the photo, in pixels."""
    box: Box | None
    """The photo inside the picture; None if it is all of it."""


def open_reduced(
    source: ImageSource, needs: Callable[[int, int], tuple[int, int]], *, name: str | None, reading: Reading
) -> Reduced:
    """Decode an image, as small as `needs` allows if it is a JPEG in a file or in bytes; errors as `open_picture`.

    Args:
        source: as in `open_picture`.
        needs: from width and height of the photo to the least that are wanted, in pixels.
        name: as in `open_picture`.
        reading: as in `open_picture`.
    """
    scale, orientation = 1, 1
    photo: tuple[int, int] | None = None

    def reduce(opened: Image.Image) -> None:
        nonlocal scale, orientation, photo
        photo = opened.size
        drafted = opened.draft(None, needs(*photo)) if opened.format in ("JPEG", "MPO") else None
        if drafted is not None:
            scale = round(photo[0] / drafted[1][2])
            orientation = opened.getexif().get(_ORIENTATION, 1) if reading.exif_orientation else 1

    picture = open_picture(source, name=name, reading=reading, before_decoding=reduce)
    if photo is None or scale == 1:
        return Reduced(picture, picture.size, None)
    size = photo[::-1] if orientation in _TURNED else photo
    width, height = size[0] / scale, size[1] / scale
    from_right, from_bottom = _MIRRORED.get(orientation, (False, False))
    left = picture.width - width if from_right else 0.0
    top = picture.height - height if from_bottom else 0.0
    return Reduced(picture, size, (left, top, left + width, top + height))
