"""Words error messages on images: what the image is called, and how it was probably meant.

An argument may be of any length, for example a whole image in base64; no message repeats all of it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from lraee.errors import shortened

LONGEST_NAME = 200
"""Characters of a path in a message."""

_BASE64 = re.compile(rb"[A-Za-z0-9+/_=\s-]+")
_PATH = re.compile(rb"[^\0\n]{1,4000}\.[A-Za-z0-9]{2,5}")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")

_TELLING = 4096
"""Bytes of an image's content that are looked at to tell what else it may be; no path is longer."""

_DECODE_BASE64 = "decode it and give the bytes: base64.b64decode(...)"


def source_name(source: object, name: str | None = None) -> str:
    """Choose what error messages call an image: `name` if given, else its path, else its kind."""
    if name is not None:
        return shortened(name, LONGEST_NAME)
    if isinstance(source, str | os.PathLike):
        return shortened(str(os.fspath(source)), LONGEST_NAME)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"an image of {len(source):,} bytes"
    return "the image"


def why_no_file(source: object) -> str:
    """Advise how to pass the image that a text or a path without a file means; empty where that is unclear.

    >>> why_no_file("https://example.org/cat.jpg")
    '; addresses are not fetched: download it, and give the path or the bytes'
    """
    return "".join(f"; {guess}" for guess in _guesses(source))


def _guesses(source: object) -> Iterator[str]:
    text = os.fspath(source) if isinstance(source, str | os.PathLike) else ""
    if not isinstance(text, str):
        return
    scheme = _SCHEME.match(text)
    if text[:5].lower() == "data:":
        yield f"a data: address is not read: take what follows its comma, {_DECODE_BASE64}"
    elif scheme and scheme[1].lower() == "file":
        yield "give the path alone, without file://"
    elif scheme:
        yield "addresses are not fetched: download it, and give the path or the bytes"
    elif len(text) > LONGEST_NAME and _BASE64.fullmatch(text[:_TELLING].encode("utf-8", "replace")):
        yield f"a text is taken for a path; if this is base64, {_DECODE_BASE64}"
    elif text.startswith("~"):
        yield "~ is not replaced by the home folder: give pathlib.Path(path).expanduser()"
    elif "\\" in text and os.sep == "/":
        yield "this system separates folders with / instead of \\"
    elif isinstance(source, str) and len(text) > LONGEST_NAME:
        yield "a text is taken for a path; give the content of an image as bytes"


def why_no_image(content: bytes) -> str:
    """Guess what bytes are that are not an image; empty where that is unclear.

    >>> why_no_image(b"photos/cat.jpg")
    '; bytes are taken for the content of an image: give a path as a str'
    """
    start = content[:_TELLING]
    if _PATH.fullmatch(content):
        return "; bytes are taken for the content of an image: give a path as a str"
    if start[:5].lower() == b"data:":
        return f"; a data: address is not read: take what follows its comma, {_DECODE_BASE64}"
    if len(start) >= 16 and _BASE64.fullmatch(start):
        return f"; if this is base64, {_DECODE_BASE64}"
    return ""


def how_to_give(source: object) -> str:
    """Advise what to do with an object that is not accepted as an image, such as a tensor or an open file.

    >>> import io
    >>> how_to_give(io.BytesIO())
    'give its content: image.read()'
    """
    if hasattr(source, "read"):
        return "give its content: image.read()"
    if hasattr(source, "detach") and hasattr(source, "numpy"):  # a tensor of torch
        return "give an array, image.numpy(), of uint8 (height, width, 3)"
    if hasattr(source, "__array__"):
        return "give an array, numpy.asarray(image), of uint8 (height, width, 3)"
    return "give a path, bytes, a Pillow image or a uint8 array (height, width, 3)"
