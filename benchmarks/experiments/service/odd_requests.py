"""Makes requests that no client should send: malformed, cut off, damaged, slow, and too much of everything.

Each is made from a seed. What a service may do is answer with a status below 500, or 503, or close the connection.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence

HOST = b"Host: 127.0.0.1\r\n"

PATHS = (
    b"/v1/classify",
    b"/v1/embed",
    b"/v1/model",
    b"/healthz",
    b"/readyz",
    b"/metrics",
    b"/",
    b"/openapi.json",
    b"/x",
)

TYPES = (b"image/jpeg", b"image/png", b"image/webp", b"image/gif", b"image/bmp", b"application/octet-stream")

PARAMETERS = (
    b"policy=full", b"policy=adaptive", b"policy=exit=4", b"policy=deadline=1", b"policy=%00", b"policy=exit=99999",
    b"deadline_ms=0.01", b"deadline_ms=1e309", b"deadline_ms=", b"top=1", b"top=1000", b"top=-1", b"labels=a,b",
    b"labels=[\"a\",\"b\"]", b"labels=" + b"%5B" * 500, b"labels=/etc/passwd,x", b"x=y", b"=", b"&&&", b"%", b"top=%ff",
)  # fmt: skip

Made = tuple[list[bytes], float]
"""Pieces of a request, and seconds between them."""


def made(seed: int, images: Sequence[bytes]) -> Made:
    """Make one odd request."""
    draw = random.Random(seed)
    return draw.choice(KINDS)(draw, images)


def _head(method: bytes, target: bytes, *headers: bytes) -> bytes:
    return method + b" " + target + b" HTTP/1.1\r\n" + HOST + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


def _target(draw: random.Random) -> bytes:
    chosen = b"&".join(draw.sample(PARAMETERS, draw.randint(0, 3)))
    return draw.choice(PATHS[:2]) + (b"?" + chosen if chosen else b"")


def _post(draw: random.Random, body: bytes, kind: bytes) -> bytes:
    return _head(b"POST", _target(draw), b"Content-Type: " + kind, b"Content-Length: %d" % len(body)) + body


def _valid(draw: random.Random, images: Sequence[bytes]) -> Made:
    return [_post(draw, draw.choice(images), draw.choice(TYPES))], 0.0


def _damaged(draw: random.Random, images: Sequence[bytes]) -> Made:
    body = bytearray(draw.choice(images))
    for _ in range(draw.randint(1, 40)):
        body[draw.randrange(len(body))] = draw.randrange(256)
    return [_post(draw, bytes(body[: draw.randint(0, len(body))]), draw.choice(TYPES))], 0.0


def _noise(draw: random.Random, images: Sequence[bytes]) -> Made:
    start = draw.choice((b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"BM"))
    return [_post(draw, start + draw.randbytes(draw.randint(0, 3000)), draw.choice(TYPES))], 0.0


def _form(draw: random.Random, images: Sequence[bytes]) -> Made:
    mark, body = draw.randbytes(6).hex().encode(), b""
    names = (
        b'name="images"',
        b'name="images"; filename="../../x.jpg"',
        b'name="top"',
        b'name="labels"',
        b"",
        b'name="',
    )
    for _ in range(draw.randint(0, 20)):
        content = draw.choice((draw.choice(images), b"3", b"a,b", draw.randbytes(50), b""))
        head = b"--" + mark + b"\r\nContent-Disposition: form-data; " + draw.choice(names)
        body += head + b"\r\n\r\n" + content + b"\r\n"
    body += draw.choice((b"--" + mark + b"--\r\n", b"", b"--" + mark))
    kind = draw.choice(
        (b"multipart/form-data; boundary=" + mark, b"multipart/form-data", b'multipart/form-data; boundary="')
    )
    return [_post(draw, body, kind)], 0.0


def _cut(draw: random.Random, images: Sequence[bytes]) -> Made:
    whole = _post(draw, draw.choice(images), draw.choice(TYPES))
    return [whole[: draw.randint(1, len(whole))]], 0.0


def _wrong_length(draw: random.Random, images: Sequence[bytes]) -> Made:
    length = draw.choice(
        (b"-1", b"99999999999999999999", b"x", b"0", b"5, 6", b"1e3", str(draw.randint(0, 10**8)).encode())
    )
    return [
        _head(b"POST", _target(draw), b"Content-Type: image/jpeg", b"Content-Length: " + length),
        draw.choice(images),
    ], 0.0


def _chunked(draw: random.Random, images: Sequence[bytes]) -> Made:
    image = draw.choice(images)
    head = _head(b"POST", _target(draw), b"Content-Type: image/jpeg", b"Transfer-Encoding: chunked")
    size = draw.choice((b"%x" % len(image), b"zz", b"ffffffffffffffff", b"-1", b""))
    return [head, size + b"\r\n" + image + b"\r\n", draw.choice((b"0\r\n\r\n", b"", b"garbage"))], 0.0


def _slow(draw: random.Random, images: Sequence[bytes]) -> Made:
    whole = _post(draw, draw.choice(images), b"image/jpeg")
    step = max(1, len(whole) // draw.randint(2, 6))
    return [whole[at : at + step] for at in range(0, len(whole), step)], draw.uniform(0.0, 0.1)


def _other(draw: random.Random, images: Sequence[bytes]) -> Made:
    method = draw.choice((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT", b"BREW", b"get"))
    return [_head(method, draw.choice(PATHS) + draw.choice((b"", b"?a=b", b"/../..", b"%2f%2e%2e")))], 0.0


def _no_http(draw: random.Random, images: Sequence[bytes]) -> Made:
    return [
        draw.choice((draw.randbytes(200), b"\x16\x03\x01\x02\x00\x01", b"\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0"))
    ], 0.0


def _large_head(draw: random.Random, images: Sequence[bytes]) -> Made:
    count = draw.choice((10, 200, 5000))
    return [_head(b"GET", b"/healthz", *(b"X-%d: %s" % (number, b"y" * 20) for number in range(count)))], 0.0


def _upgrade(draw: random.Random, images: Sequence[bytes]) -> Made:
    return [_head(b"GET", b"/", b"Connection: Upgrade", b"Upgrade: " + draw.choice((b"websocket", b"h2c")))], 0.0


def _pipelined(draw: random.Random, images: Sequence[bytes]) -> Made:
    return [b"".join(_post(draw, draw.choice(images), b"image/jpeg") for _ in range(draw.randint(2, 5)))], 0.0


KINDS: tuple[Callable[[random.Random, Sequence[bytes]], Made], ...] = (
    _valid, _damaged, _damaged, _noise, _form, _form, _cut, _wrong_length, _chunked, _slow, _other, _no_http,
    _large_head, _upgrade, _pipelined,
)  # fmt: skip
"""All kinds of requests."""


async def send_odd(port: int, seed: int, images: Sequence[bytes], patience_s: float = 10.0) -> list[int]:
    """Send one odd request on a connection of its own; gives the statuses that came back, if any."""
    pieces, pause_s = made(seed, images)
    found, writer = b"", None
    try:
        async with asyncio.timeout(patience_s):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
            if seed % 3:  # the others wait for what the service does
                writer.write_eof()
            while piece := await reader.read(65536):
                found += piece
                if seed % 3 == 0 and found.count(b"HTTP/1.1 ") >= 1 and found.endswith((b"}", b"\n")):
                    break
    except (OSError, TimeoutError):
        pass
    finally:
        if writer is not None:
            writer.close()
    return [int(one[:3]) for one in found.split(b"HTTP/1.1 ")[1:] if one[:3].isdigit()]


async def send_many(port: int, count: int, images: Sequence[bytes], at_a_time: int = 16) -> Counter[int]:
    """Send odd requests, some at a time; gives how often each status came back."""
    statuses: Counter[int] = Counter()
    numbers = iter(range(count))

    async def some() -> None:
        for seed in numbers:
            statuses.update(await send_odd(port, seed, images) or [0])

    await asyncio.gather(*(some() for _ in range(at_a_time)))
    return statuses
