"""Reads an image, whatever its source or colour mode, as uint8 RGB.

Every image enters the project here, so that calibration, training, evaluation and the device see the same pixels.
Pillow is optional (extra `image`) and imported on first need: a device whose camera gives RGB arrays runs without it.

open_clip differs in one point: it resizes first and converts to RGB afterwards, and drops alpha. Here the conversion
comes first, because a palette index cannot be interpolated and a transparent pixel has no meaningful colour. For RGB
and grey images the two orders give the same pixels.
"""

import importlib.util
import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray

from lraee.errors import ImageError, MissingExtraError
from lraee.install import install_command
from lraee.reading import PLAIN_READING, Reading

if TYPE_CHECKING:
    from PIL import Image

Pixels: TypeAlias = NDArray[np.uint8]
"""uint8 pixels, channels last: (height, width, 3), or (batch, height, width, 3) where a docstring says so."""

ImageSource: TypeAlias = Union[str, os.PathLike[str], bytes, Pixels, "Image.Image"]
"""A path, the bytes of an encoded image, uint8 RGB (height, width, 3), or a Pillow image."""

Interpolation = Literal["bicubic", "bilinear", "nearest"]
"""Pillow's filter of that name; `bicubic` and `bilinear` are antialiased."""

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right and bottom of a part of an image, in its pixels."""

INSTALL_PILLOW = install_command("image")

_DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error, IndexError, KeyError, OverflowError
)  # fmt: skip
"""What Pillow's decoders raise on damaged files; its own UnidentifiedImageError is an OSError."""

_PILLOWS_LIMIT = "PIL.Image.MAX_IMAGE_PIXELS"

_OTHER_DECODER = (
    "where OpenCV is, pass lraee.frames.from_bgr(cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)), "
    "for a JPEG the same pixels; otherwise "
)


def read_image(source: ImageSource, *, name: str | None = None, reading: Reading = PLAIN_READING) -> Pixels:
    """Read one image as RGB.

    Alpha is composited over white, of an animation the first frame is taken, and 16-bit grey is scaled to 8 bits.

    Args:
        source: A path, encoded bytes, a Pillow image, or uint8 RGB (height, width, 3), which is returned as it is.
        name: What error messages call the image; by default the path, or the kind of source.
        reading: Whether to turn the image as its EXIF tag says, and how large it may be.

    Returns:
        uint8 (height, width, 3), RGB, C-contiguous.

    Raises:
        ImageError: The image is missing, damaged, too large, or an array of another shape or type.
        MissingExtraError: A path or bytes were given and Pillow is not installed.
    """
    if isinstance(source, np.ndarray):
        return check_pixels(source, name=name)
    return np.array(open_image(source, name=name, reading=reading), dtype=np.uint8)


def open_image(
    source: ImageSource,
    *,
    name: str | None = None,
    reading: Reading = PLAIN_READING,
    before_decoding: "Callable[[Image.Image], None] | None" = None,
) -> "Image.Image":
    """Read one image as a decoded Pillow image of mode RGB; arguments and errors as `read_image`.

    Args:
        source: As in `read_image`.
        name: As in `read_image`.
        reading: As in `read_image`.
        before_decoding: Called with the opened image of a path or bytes, of which only the header is read yet.
    """
    name = source_name(source, name)
    if isinstance(source, np.ndarray):
        array = check_pixels(source, name=name)
        picture: Image.Image = import_pillow("making a Pillow image of an array").fromarray(array)
        return picture
    if is_pillow_image(source):
        return _decode(source, name, reading)
    if isinstance(source, bytes | bytearray | memoryview):
        return _open(io.BytesIO(source), name, reading, before_decoding)
    if isinstance(source, str | os.PathLike):
        return _open(source, name, reading, before_decoding)
    raise ImageError(
        f"{name} is a {type(source).__name__}; give a path, bytes, a Pillow image or a uint8 array (height, width, 3)"
    )


def to_rgb(image: "Image.Image") -> "Image.Image":
    """Convert a Pillow image of any 8-bit or 16-bit mode to RGB.

    Transparency (an alpha channel, a transparent palette entry or colour) is composited over white. 16-bit grey is
    scaled: 65535 becomes 255.

    Raises:
        ImageError: The mode has no fixed range (F, or I beyond 16 bits) or Pillow cannot convert it.
    """
    pillow = import_pillow("converting an image")
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode == "I" or image.mode.startswith("I;16"):
        image = _grey_from_16_bits(image, pillow)
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = pillow.new("RGBA", image.size, (255, 255, 255, 255))
        image = pillow.alpha_composite(white, image)
    return image.convert("RGB")


def check_pixels(array: NDArray[np.generic], *, name: str | None = None) -> Pixels:
    """Return `array` if it is uint8 RGB (height, width, 3), C-contiguous; otherwise raise ImageError with the fix."""
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size > 0:
        return np.ascontiguousarray(array, dtype=np.uint8)
    if array.dtype != np.uint8:
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


def source_name(source: object, name: str | None = None) -> str:
    """What error messages call an image: `name` if given, else its path, else its kind."""
    if name is not None:
        return name
    if isinstance(source, str | os.PathLike):
        return str(os.fspath(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return f"an image of {len(source):,} bytes"
    return "the image"


def is_pillow_image(source: object) -> TypeGuard["Image.Image"]:
    """Whether `source` is a Pillow image, without importing Pillow: who has one has imported it."""
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(source, pillow.Image)


def pillow_is_installed() -> bool:
    """Whether Pillow can be imported; does not import it."""
    return importlib.util.find_spec("PIL") is not None


def import_pillow(purpose: str, otherwise: str = "") -> ModuleType:
    """The module `PIL.Image`; a MissingExtraError says for what purpose it is needed and what else would do."""
    if not pillow_is_installed():
        raise MissingExtraError(f"{purpose} needs Pillow, which is not installed; {otherwise}run: {INSTALL_PILLOW}")
    from PIL import Image

    return Image


def _open(
    source: "str | os.PathLike[str] | io.BytesIO",
    name: str,
    reading: Reading,
    before_decoding: "Callable[[Image.Image], None] | None",
) -> "Image.Image":
    pillow = import_pillow("decoding an image file", _OTHER_DECODER)
    try:
        opened = pillow.open(source)
    except FileNotFoundError as error:
        raise ImageError(f"{name}: there is no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name} is a folder; give the path of one image") from error
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        raise ImageError(_too_large(name, str(error), _PILLOWS_LIMIT)) from error
    except pillow.UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image in a format that Pillow can read") from error
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name} cannot be read: {error}") from error
    with opened:
        _check_size(opened, name, reading)  # of the whole file: a progressive JPEG is decoded whole, however reduced
        if before_decoding is not None:
            before_decoding(opened)
        return _decode(opened, name, reading)


def _decode(image: "Image.Image", name: str, reading: Reading) -> "Image.Image":
    pillow = import_pillow("decoding an image")
    _check_size(image, name, reading)
    try:
        image.load()
        if reading.exif_orientation:
            from PIL import ImageOps

            image = ImageOps.exif_transpose(image)
        return to_rgb(image)
    except ImageError as error:
        raise ImageError(f"{name} cannot be converted to RGB: {error}") from error
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:  # of an image inside the image
        raise ImageError(_too_large(name, str(error), _PILLOWS_LIMIT)) from error
    except MemoryError as error:
        raise ImageError(f"{name} is {image.width} x {image.height} pixels, more than the memory holds") from error
    except _DECODE_ERRORS as error:
        raise ImageError(f"{name} is damaged or cannot be converted to RGB: {error}") from error


def _check_size(image: "Image.Image", name: str, reading: Reading) -> None:
    """Refuse an image by the size in its header, before anything is decoded."""
    pillow = import_pillow("decoding an image")
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels: it is {width} x {height}")
    if width * height > reading.max_pixels:
        cause = f"it is {width} x {height} pixels, wanted at most {reading.max_pixels:,}"
        raise ImageError(_too_large(name, cause, "Reading.max_pixels or --max-pixels"))
    if pillow.MAX_IMAGE_PIXELS is not None and width * height > pillow.MAX_IMAGE_PIXELS:
        raise ImageError(_too_large(name, f"it is {width} x {height} pixels", _PILLOWS_LIMIT))


def _too_large(name: str, cause: str, limit: str) -> str:
    return f"{name} is too large to decode safely: {cause}; if you trust it, raise {limit}"


def _grey_from_16_bits(image: "Image.Image", pillow: ModuleType) -> "Image.Image":
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"mode {image.mode} holds values {values.min()} to {values.max()}, which have no agreed range; "
            "save the image with 8 or 16 bits"
        )
    wide = values.astype(np.uint32)
    grey: Image.Image = pillow.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
    transparent = image.info.get("transparency")  # a PNG may declare one grey value as transparent
    if isinstance(transparent, int):
        grey.putalpha(pillow.fromarray(np.where(wide == transparent, 0, 255).astype(np.uint8)))
    return grey
