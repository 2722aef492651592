"""Opens image files with Pillow's decoders, under this project's limit on pixels.

`PIL.Image.open` warns or refuses by a global of the process, `PIL.Image.MAX_IMAGE_PIXELS`. It cannot be told otherwise
for one call, and changing the global would change it for all threads of the program; so its search through the
registered formats is done here, with a limit that belongs to the call.

Source: `PIL.Image.open` and `register_open`.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeVar

from lraee.errors import ImageError, shortened
from lraee.images.words import why_no_file, why_no_image

if TYPE_CHECKING:
    from PIL import Image

T = TypeVar("T")

EncodedImage: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview

DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, EOFError, struct.error, zlib.error, IndexError, KeyError,
    OverflowError, RuntimeError,
)  # fmt: skip
"""What Pillow's decoders raise on damaged files; RuntimeError is that of AVIF, and NotImplementedError that of DDS."""

_HEADER = 16
"""Bytes by which Pillow tells formats."""

_ICON = b"\0\0\1\0"

_LONGEST_CAUSE = 300
"""Characters of what Pillow says of an error; it may repeat a whole path."""


@contextmanager
def opened(source: EncodedImage, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image of which only the header is read; what it names is closed again.

    Args:
        source: a path, or the bytes of an image file.
        name: what error messages call the image.
        max_pixels: images with more are refused.

    Raises:
        ImageError: the file is missing, is not a file, not an image, or too large.
    """
    with _content(source, name) as content:
        header = decoding(name, lambda: content.read(_HEADER))
        if header.startswith(_ICON):  # which Pillow decodes when it opens it
            for size in _sizes_in_icon(content):
                _check_pixels(size, name, max_pixels)
        image = _identified(content, source, name, header)
        check_size(image, name, max_pixels)
        yield image


def check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    """Refuse an image by the size in its header, before anything is decoded.

    Raises:
        ImageError: it has no pixels, or more than `max_pixels`.
    """
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"{name} has no pixels: it is {width} x {height}")
    _check_pixels(image.size, name, max_pixels)


def decoding(name: str, decode: Callable[[], T]) -> T:
    """Run a step of Pillow and turn its errors into one that names the image.

    Raises:
        ImageError: it failed.
    """
    from PIL import Image

    try:
        return decode()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # of an image inside the image
        raise _too_large_for_pillow(name, error) from error
    except MemoryError as error:
        raise ImageError(f"{name} needs more memory than there is; scale it down first") from error
    except DECODE_ERRORS as error:
        raise ImageError(f"{name} is damaged or cannot be converted to RGB: {_cause(error)}") from error


@contextmanager
def _content(source: EncodedImage, name: str) -> Iterator[BinaryIO]:
    if isinstance(source, bytes | bytearray | memoryview):
        yield io.BytesIO(bytes(source))  # a view may have gaps
        return
    try:
        kind = os.stat(source).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):  # opening a pipe would wait for a writer
            raise ImageError(f"{name} is a pipe or a device; read it, and give its content as bytes")
        file = open(source, "rb")  # noqa: SIM115 # closed below, so that its errors are told from those of decoding
    except FileNotFoundError as error:
        raise ImageError(f"{name}: there is no such file{why_no_file(source)}") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name} is a folder; give the path of one image") from error
    except (OSError, ValueError) as error:  # a name too long, or with a NUL in it
        raise ImageError(f"{name} cannot be read: {_cause(error)}{why_no_file(source)}") from error
    with file:
        yield file


def _identified(content: BinaryIO, source: EncodedImage, name: str, header: bytes) -> Image.Image:
    from PIL import Image

    lacking: list[str] = []
    path = "" if isinstance(source, bytes | bytearray | memoryview) else os.fspath(source)
    try:
        image = _first_format(content, path, header, lacking)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # asked by a decoder itself
        raise _too_large_for_pillow(name, error) from error
    except DECODE_ERRORS as error:
        raise ImageError(f"{name} cannot be read: {_cause(error)}") from error
    if image is not None:
        return image
    if not header:
        raise ImageError(f"{name} is empty: it has 0 bytes")
    why = f": {_cause(lacking[0])}" if lacking else ""
    meant = why_no_image(bytes(source)) if isinstance(source, bytes | bytearray | memoryview) else ""
    raise ImageError(f"{name} is not an image in a format that Pillow can read{why}{meant}")


def _first_format(content: BinaryIO, path: str, header: bytes, lacking: list[str]) -> Image.Image | None:
    """Open the image with the first format that accepts it; `lacking` gets what Pillow was built without."""
    from PIL import Image

    tried: set[str] = set()
    for register in (Image.preinit, Image.init):  # the usual formats, then all
        register()
        for kind in [kind for kind in Image.ID if kind not in tried]:
            tried.add(kind)
            factory, accepts = Image.OPEN[kind]
            try:
                accepted = True if accepts is None else accepts(header)
                if isinstance(accepted, str):
                    lacking.append(accepted)
                elif accepted:
                    content.seek(0)
                    return factory(content, path)
            except (SyntaxError, IndexError, TypeError, struct.error):  # as `PIL.Image.open`: another format, then
                continue
    return None


def _sizes_in_icon(content: BinaryIO) -> Iterator[tuple[int, int]]:
    """Read width and height of the images inside an icon from their own headers: the icon's may say less.

    Source: the ICO format: a directory of 16 bytes an image, each a PNG or a BMP without its file header.
    """
    content.seek(0)
    start = content.read(6)
    directory = content.read(16 * int.from_bytes(start[4:6], "little"))
    for at in range(0, len(directory) - 15, 16):
        content.seek(int.from_bytes(directory[at + 12 : at + 16], "little"))
        header = content.read(24)
        if header.startswith(b"\x89PNG") and len(header) == 24:
            yield struct.unpack(">II", header[16:24])
        elif len(header) == 24:
            width, height = struct.unpack("<ii", header[4:12])
            yield abs(width), abs(height) // 2  # colours and a mask, one above the other
    content.seek(0)


def _check_pixels(size: tuple[int, int], name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"{name} is too large to decode safely: it is {width} x {height} pixels, wanted at most {max_pixels:,} "
            "(max_pixels); scale it down first",
            setting="max_pixels",
        )


def _too_large_for_pillow(name: str, error: Exception) -> ImageError:
    return ImageError(f"{name} is too large for Pillow ({_cause(error)}); scale it down, or save it as JPEG or PNG")


def _cause(error: object) -> str:
    """Give what Pillow or the system says, without the path, which the message has named."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return shortened(" ".join(said.split()) or type(error).__name__, _LONGEST_CAUSE)
