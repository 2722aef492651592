"""Reads the body of a request within limits of size and time, and takes it apart.

The size is checked while the body comes, so a client that announces less, or nothing, gains nothing. A form is parsed
here, because the parsers of web frameworks write large parts to files.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from email.message import Message

from lraee.service.problems import Problem
from lraee.service.settings import ServiceSettings

FORMATS = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "WebP": (b"RIFF",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "BMP": (b"BM",),
}
"""Formats that are accepted, by their first bytes: Pillow has decoders for many more that start programs or are old."""

MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp", "application/octet-stream")
"""Types of a body that is one image."""

FORM = "multipart/form-data"

MOST_FIELDS = 32
"""Parts of a form that are no images."""

FIELD_BYTES = 262_144
"""Of all parts of a form that are no images."""

PART_HEAD_BYTES = 4096

_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
"""Source: RFC 2046, section 5.1.1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """Holds what a request says in its body."""

    images: tuple[tuple[str | None, bytes], ...]
    """Name, as the client calls the file, and content of each image."""
    fields: tuple[tuple[str, str], ...] = ()
    """Name and value of each other part of a form."""
    is_one: bool = True
    """Whether the body is one image, and no form."""


async def read_body(
    chunks: AsyncIterator[bytes], length: str | None, settings: ServiceSettings, hold: Callable[[int], None]
) -> bytes:
    """Read a whole body.

    Args:
        chunks: as they come.
        length: what the client announces, if it does.
        settings: the limits.
        hold: is told of the bytes of each chunk; see `Admission.holding`.

    Raises:
        Problem: 413, it is too large, or 408, it takes too long.
    """
    if length is not None and length.isdecimal() and int(length[:19]) > settings.body_bytes:
        raise _too_large(settings)
    found, size = [], 0
    try:
        async with asyncio.timeout(settings.body_time_s):
            async for chunk in chunks:
                size += len(chunk)
                if size > settings.body_bytes:
                    raise _too_large(settings)
                if chunk:
                    hold(len(chunk))
                    found.append(chunk)
    except TimeoutError as error:
        raise Problem(
            408, f"{size:,} bytes of the body came within {settings.body_time_s:g} s; send it faster, or less"
        ) from error
    return found[0] if len(found) == 1 else b"".join(found)


def _too_large(settings: ServiceSettings) -> Problem:
    return Problem(413, f"the body has more than {settings.body_bytes:,} bytes; scale the images down first")


def check_media_type(given: str | None) -> str:
    """Give the media type of a body, without its parameters.

    Raises:
        Problem: 415, it is none of those that are accepted.
    """
    kind = (given or "").partition(";")[0].strip().lower()
    if kind not in MEDIA_TYPES and kind != FORM:
        raise Problem(
            415,
            f"the body is {kind[:80] or 'of no type'}, wanted {', '.join(MEDIA_TYPES)} or {FORM}; say which in the "
            "header Content-Type",
        )
    return kind


def check_format(image: bytes) -> None:
    """Refuse an image that is in none of `FORMATS`; an empty one passes, for the library says so better.

    Raises:
        Problem: 415.
    """
    known = any(image.startswith(start) for starts in FORMATS.values() for start in starts)
    if image and (not known or (image.startswith(b"RIFF") and image[8:12] != b"WEBP")):
        raise Problem(415, f"the image is in none of the formats {', '.join(FORMATS)}; convert it first")


def parse_body(body: bytes, content_type: str) -> Form:
    """Take the body of a request apart: one image, or a form with images and fields.

    Args:
        body: as a whole.
        content_type: of the request, one that `check_media_type` accepts.

    Raises:
        Problem: 400, the form is malformed.
    """
    if check_media_type(content_type) != FORM:
        return Form(images=((None, body),))
    images: list[tuple[str | None, bytes]] = []
    fields: list[tuple[str, str]] = []
    spent = 0
    for name, file_name, content in parse_form(body, content_type):
        if name == "images":
            images.append((file_name, content))
            continue
        spent += len(content)
        if len(fields) >= MOST_FIELDS or spent > FIELD_BYTES:
            raise Problem(413, f"the fields of the form are more than {MOST_FIELDS}, or {FIELD_BYTES:,} bytes")
        try:
            fields.append((name, content.decode("utf-8")))
        except UnicodeDecodeError as error:
            raise Problem(400, f"the field {name!r} of the form is not UTF-8") from error
    if not images:
        raise Problem(422, "the form has no image; give each as a part called 'images'")
    return Form(images=tuple(images), fields=tuple(fields), is_one=False)


def parse_form(body: bytes, content_type: str) -> list[tuple[str, str | None, bytes]]:
    r"""Parse multipart/form-data: name, file name and content of each part.

    >>> parse_form(
    ...     b'--x\r\nContent-Disposition: form-data; name="top"\r\n\r\n3\r\n--x--\r\n',
    ...     "multipart/form-data; boundary=x",
    ... )
    [('top', None, b'3')]

    Raises:
        Problem: 400, it is malformed.

    Source: RFC 7578, and RFC 2046, section 5.1.
    """
    boundary = str(_header("content-type", content_type).get_param("boundary", "")).encode("latin-1", "replace")
    if not _BOUNDARY.fullmatch(boundary):
        raise Problem(400, "the form has no boundary in the header Content-Type, or one of more than 70 characters")
    mark = b"\r\n--" + boundary
    text_at = len(mark) - 2 if body.startswith(mark[2:]) else _find(body, mark, 0) + len(mark)
    found: list[tuple[str, str | None, bytes]] = []
    while True:
        following = body[text_at : text_at + 2]
        if following == b"--":
            return found
        head_at = body.find(b"\r\n", text_at, text_at + 80) + 2
        if head_at < 2 or body[text_at : head_at - 2].strip(b" \t"):
            raise Problem(400, "the form is malformed: a boundary is not followed by the end of its line")
        head_end = body.find(b"\r\n\r\n", head_at - 2, head_at + PART_HEAD_BYTES)
        if head_end < 0:
            raise Problem(400, "the form is malformed: a part has no head, or one without end")
        end = _find(body, mark, head_end + 2)
        name, file_name = _disposition(body[head_at:head_end])
        found.append((name, file_name, body[head_end + 4 : end]))
        text_at = end + len(mark)


def _find(body: bytes, mark: bytes, start: int) -> int:
    at = body.find(mark, start)
    if at < 0:
        raise Problem(400, "the form is malformed or cut off: its last boundary is missing")
    return at


def _disposition(head: bytes) -> tuple[str, str | None]:
    """Give the names of a part of a form and of its file."""
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        if key.strip().lower() == b"content-disposition":
            header = _header("content-disposition", value.decode("utf-8", "replace").strip())
            name, file_name = header.get_param("name", header="content-disposition"), header.get_filename()
            if isinstance(name, str):
                return name, file_name
    raise Problem(400, "the form is malformed: a part has no name")


def _header(name: str, value: str) -> Message:
    message = Message()
    message[name] = "".join(letter if letter.isprintable() else "?" for letter in value)
    return message
