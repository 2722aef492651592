"""Writes image files that Pillow reads and cannot write: every PNG, planar, tiled and big-endian TIFFs, old BMPs."""

import struct
import zlib

import numpy as np

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass of an interlaced PNG, and its steps."""

PNG_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}
"""Colour type by samples a pixel, but for palettes, which have type 3."""


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """One chunk with its length and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def packed(samples: np.ndarray, bits: int) -> bytes:
    """Rows (height, values) of `bits` each, every row filled up to whole bytes; 16 bits big-endian, 12 bits too."""
    if bits == 16:
        return samples.astype(">u2").tobytes()
    if bits == 8:
        return samples.astype(np.uint8).tobytes()
    ones = (samples[..., None].astype(np.uint16) >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(ones.reshape(len(samples), -1).astype(np.uint8), axis=1).tobytes()


def png(
    samples: np.ndarray,
    bits: int,
    *,
    palette: bytes | None = None,
    interlaced: bool = False,
    chunks: tuple[tuple[bytes, bytes], ...] = (),
) -> bytes:
    """A PNG of (height, width, channels) samples of 1, 2, 4, 8 or 16 bits; `chunks` stand before the pixels."""
    height, width, channels = samples.shape
    kind = 3 if palette is not None else PNG_COLOURS[channels]
    raw = b""
    for left, top, across, down in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[top::down, left::across]
        if part.size:
            rows = packed(part.reshape(len(part), -1), bits)
            size = len(rows) // len(part)
            raw += b"".join(b"\0" + rows[at : at + size] for at in range(0, len(rows), size))
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    extra = ((b"PLTE", palette),) if palette is not None else ()
    content = ((b"IHDR", header), *extra, *chunks, (b"IDAT", zlib.compress(raw)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in content)


def tiff(
    samples: np.ndarray,
    bits: int,
    *,
    order: str = "<",
    planar: bool = False,
    tile: int = 0,
    photometric: int | None = None,
    sample_format: int = 1,
) -> bytes:
    """An uncompressed TIFF of (height, width, channels) samples; `order` is ``<`` or ``>`` as in `struct`.

    Source: TIFF 6.0, sections 2 (tags), 8 (planar) and 15 (tiles).
    """
    height, width, channels = samples.shape
    planes = [samples[..., [number]] for number in range(channels)] if planar else [samples]
    pieces = [piece for plane in planes for piece in (_tiles(plane, tile) if tile else [plane])]
    if bits in (16, 32):
        kind = {1: "u", 2: "i", 3: "f"}[sample_format]
        data = [piece.astype(f"{order}{kind}{bits // 8}").tobytes() for piece in pieces]
    else:
        data = [packed(piece.reshape(len(piece), -1), bits) for piece in pieces]
    offsets = [8 + sum(map(len, data[:number])) for number in range(len(data))]
    meaning = photometric if photometric is not None else (2 if channels >= 3 else 1)
    tags: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: (bits,) * channels, 259: (1,), 262: (meaning,), 277: (channels,),
        284: (2 if planar else 1,), 339: (sample_format,) * channels,
    }  # fmt: skip
    if channels == 4 and meaning == 2:
        tags[338] = (2,)
    if tile:
        tags |= {322: (tile,), 323: (tile,), 324: tuple(offsets), 325: tuple(map(len, data))}
    else:
        tags |= {273: tuple(offsets), 278: (height,), 279: tuple(map(len, data))}
    return _tiff_file(b"".join(data), tags, order)


def _tiles(plane: np.ndarray, size: int) -> list[np.ndarray]:
    height, width, _ = plane.shape
    full = np.pad(plane, ((0, -height % size), (0, -width % size), (0, 0)))
    return [full[y : y + size, x : x + size] for y in range(0, height, size) for x in range(0, width, size)]


def _tiff_file(data: bytes, tags: dict[int, tuple[int, ...]], order: str) -> bytes:
    data += b"\0" * (len(data) % 2)
    directory = 8 + len(data)
    behind = directory + 2 + 12 * len(tags) + 4
    entries, long_values = b"", b""
    for tag, values in sorted(tags.items()):
        is_short = tag not in (256, 257, 273, 278, 279, 324, 325)
        content = struct.pack(f"{order}{len(values)}{'H' if is_short else 'I'}", *values)
        entries += struct.pack(f"{order}HHI", tag, 3 if is_short else 4, len(values))
        if len(content) > 4:
            entries += struct.pack(f"{order}I", behind + len(long_values))
            long_values += content
        else:
            entries += content.ljust(4, b"\0")
    start = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, directory)
    return start + data + struct.pack(f"{order}H", len(tags)) + entries + b"\0\0\0\0" + long_values


def bmp(
    rows: list[bytes], width: int, bits: int, *, palette: bytes = b"", masks: bytes = b"", up: bool = True
) -> bytes:
    """A BMP of rows from the top, each filled up to 4 bytes; `up` stores the last row first, as is usual."""
    padded = [row + b"\0" * (-len(row) % 4) for row in rows]
    data = b"".join(reversed(padded) if up else padded)
    start = 14 + 40 + len(masks) + len(palette)
    height = len(rows) if up else -len(rows)
    colours = len(palette) // 4
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, 3 if masks else 0, len(data), 0, 0, colours, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + masks + palette + data
