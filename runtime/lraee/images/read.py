"""Reads an image, whatever its source or colour mode, as uint8 RGB.

Every image enters the project here, so that calibration, training, evaluation and the device see the same pixels.
Pillow is optional (extra `image`) and imported on first need: a device with a camera that gives RGB arrays runs without
it.

Files are opened by `files`, modes converted by `colours`. docs/photos.md lists where this differs from open_clip.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray

from lraee.errors import ImageError, MissingExtraError
from lraee.images.colours import bits_of_grey, ready_to_resize, to_rgb
from lraee.images.files import EncodedImage, check_size, decoding, opened
from lraee.images.words import how_to_give, source_name
from lraee.install import install_command
from lraee.reading import PLAIN_READING, Reading

if TYPE_CHECKING:
    from PIL import Image

Pixels: TypeAlias = NDArray[np.uint8]
"""uint8 pixels, channels last: (height, width, 3), or (batch, height, width, 3) where a docstring says so."""

ImageSource: TypeAlias = Union[str, os.PathLike[str], bytes, Pixels, "Image.Image"]
"""A path, the bytes of an encoded image, uint8 RGB (height, width, 3), or a Pillow image."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in its pixels."""

INSTALL_PILLOW = install_command("image")

_OTHER_DECODER = (
    "where OpenCV is, pass lraee.frames.from_bgr(cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)), "
    "for a JPEG the same pixels; otherwise "
)


def read_image(source: ImageSource, *, name: str | None = None, reading: Reading = PLAIN_READING) -> Pixels:
    """Read one image as RGB, at its own size.

    Alpha is dropped unless `reading` has a background, of an animation the first frame is taken, and 16-bit grey is
    scaled to 8 bits.

    Args:
        source: A path, encoded bytes, a Pillow image, or uint8 RGB (height, width, 3), which is returned as it is.
        name: What error messages call the image; by default the path, or the kind of source.
        reading: Whether to turn the image as its EXIF tag says, how large it may be, and what lies under transparent
            pixels.

    Returns:
        uint8 (height, width, 3), RGB, C-contiguous.

    Raises:
        ImageError: The image is missing, damaged, too large, or an array of another shape or type.
        MissingExtraError: A path or bytes were given and Pillow is not installed.
    """
    if isinstance(source, np.ndarray):
        return check_pixels(source, name=name)
    return np.array(open_image(source, name=name, reading=reading), dtype=np.uint8)


def open_image(source: ImageSource, *, name: str | None = None, reading: Reading = PLAIN_READING) -> Image.Image:
    """Read one image as a decoded Pillow image of mode RGB, at its own size; arguments and errors as `read_image`."""
    name = source_name(source, name)
    if isinstance(source, np.ndarray):
        array = check_pixels(source, name=name)
        made: Image.Image = import_pillow("making a Pillow image of an array").fromarray(array)
        return made
    picture = open_picture(source, name=name, reading=reading)
    return decoding(name, lambda: to_rgb(picture))


def open_picture(
    source: ImageSource,
    *,
    name: str | None = None,
    reading: Reading = PLAIN_READING,
    before_decoding: Callable[[Image.Image], None] | None = None,
) -> Image.Image:
    """Read one image as a decoded Pillow image of a mode that is resized first and converted to RGB afterwards.

    Args:
        source: As in `read_image`, except arrays.
        name: As in `read_image`.
        reading: As in `read_image`.
        before_decoding: Called with the opened image of a path or bytes, of which only the header is read yet.

    Raises:
        ImageError: as `read_image`.
        MissingExtraError: as `read_image`.
    """
    name = source_name(source, name)
    if is_pillow_image(source):
        return _decode(source, name, reading)
    if not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview):
        raise ImageError(f"{name} is a {type(source).__name__}; {how_to_give(source)}")
    return _open(source, name, reading, before_decoding)


def check_pixels(array: NDArray[np.generic], *, name: str | None = None) -> Pixels:
    """Return `array` if it is uint8 RGB (height, width, 3), C-contiguous; otherwise raise ImageError with the fix."""
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size > 0:
        return np.ascontiguousarray(array, dtype=np.uint8)
    if array.dtype == np.bool_:
        fix = "use image.astype(numpy.uint8) * 255"
    elif array.dtype != np.uint8:
        fix = "scale it to 0..255 and use .astype(numpy.uint8)"
    elif array.ndim == 2:
        fix = "repeat a grey image with numpy.stack([image] * 3, axis=2)"
    elif array.ndim == 3 and array.shape[2] == 4:
        fix = "an array does not say what its fourth channel means: pass PIL.Image.fromarray(image) if it is RGBA"
    elif array.ndim == 3 and array.shape[0] == 3:
        fix = "channels come last: image.transpose(1, 2, 0)"
    elif array.ndim == 4:
        fix = "this is a batch: give its images one by one"
    else:
        fix = "give one RGB image"
    raise ImageError(
        f"{source_name(array, name)} is an array of {array.dtype} {array.shape}; "
        f"wanted uint8 (height, width, 3) with no empty axis; {fix}"
    )


def is_pillow_image(source: object) -> TypeGuard[Image.Image]:
    """Tell whether `source` is a Pillow image, without importing Pillow: whoever made one has imported it.

    While another thread imports Pillow, its module is there without the class, and there is no image yet.
    """
    kind = getattr(sys.modules.get("PIL.Image"), "Image", None)
    return kind is not None and isinstance(source, kind)


def pillow_is_installed() -> bool:
    """Tell whether Pillow can be imported, without importing it."""
    return importlib.util.find_spec("PIL") is not None


def import_pillow(purpose: str, otherwise: str = "") -> ModuleType:
    """Import `PIL.Image`; a MissingExtraError says for what purpose it is needed and what else would do."""
    if not pillow_is_installed():
        raise MissingExtraError(f"{purpose} needs Pillow, which is not installed; {otherwise}run: {INSTALL_PILLOW}")
    from PIL import Image

    return Image


def _open(
    source: EncodedImage, name: str, reading: Reading, before_decoding: Callable[[Image.Image], None] | None
) -> Image.Image:
    import_pillow("decoding an image file", _OTHER_DECODER)
    with opened(source, name, reading.max_pixels) as image:
        if before_decoding is not None:
            before_decoding(image)
        return _decode(image, name, reading)


def _decode(image: Image.Image, name: str, reading: Reading) -> Image.Image:
    check_size(image, name, reading.max_pixels)  # of a caller's picture too
    file = getattr(image, "fp", None)
    if getattr(image, "tile", None) and (file is None or file.closed):  # still to be decoded
        raise ImageError(
            f"{name} was closed before it was decoded; give its path, or call image.load() while its file is open"
        )
    return decoding(name, lambda: _decoded(image, name, reading))


def _decoded(image: Image.Image, name: str, reading: Reading) -> Image.Image:
    image.load()
    bits = bits_of_grey(image)
    if reading.exif_orientation:
        from PIL import ImageOps

        image = ImageOps.exif_transpose(image)
    return ready_to_resize(image, name, bits, reading.background)
