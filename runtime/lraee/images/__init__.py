"""Reads images and resizes them to the model's square of pixels.

May import: bundle, checks, errors, install, ort, reading.
"""

from lraee.images.read import (
    Box,
    ImageSource,
    Pixels,
    check_pixels,
    import_pillow,
    is_pillow_image,
    open_image,
    open_picture,
    pillow_is_installed,
    read_image,
)

__all__ = [
    "Box",
    "ImageSource",
    "Pixels",
    "check_pixels",
    "import_pillow",
    "is_pillow_image",
    "open_image",
    "open_picture",
    "pillow_is_installed",
    "read_image",
]
