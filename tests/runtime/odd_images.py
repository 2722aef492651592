"""About 200 images of every mode, format and oddity, made from 12 pictures; the same on every machine, none in git.

Each says how it is to be read: like open_clip does, or as one of the exceptions that docs/photos.md lists.
"""

import io
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

WRITE = runpy.run_path(str(Path(__file__).with_name("image_writers.py")))
png = WRITE["png"]
OTHER_FILES = runpy.run_path(str(Path(__file__).with_name("odd_files.py")))["ALL"]

SAME = "as open_clip"
"""Both read it, and the pixels are equal within one level."""

NEITHER = "neither"
"""Both refuse it: it is damaged, or no image."""

OURS_DIFFERS = {"grey of 16 bits", "palette with alpha"}
"""Exceptions where open_clip reads something else, or, with an older Pillow, nothing."""

OURS_ALONE = {"premultiplied grey"}
"""Exceptions that open_clip refuses."""

OURS_REFUSES = {"floats", "grey beyond 16 bits"}
"""Exceptions that this project refuses."""


class OddImage(NamedTuple):
    """Describes one image of the list."""

    name: str
    source: Any
    """Bytes of a file, or a function that gives a fresh Pillow image."""
    how: str = SAME
    """`SAME`, `NEITHER`, or the name of an exception."""
    meant: Image.Image | None = None
    """Where open_clip cannot be compared with: the picture that is in it, with 8 bits."""


def base(index: int, width: int, height: int) -> Image.Image:
    """RGB, smooth: a picture of clothing, tinted so that its channels differ."""
    rng = np.random.default_rng(index)
    grey = np.asarray(PICTURES[index % len(PICTURES)].convert("L").resize((width, height), Image.Resampling.BICUBIC))
    y, x = np.mgrid[:height, :width]
    tints = [0.75 + 0.25 * np.cos(rng.uniform(1, 3) * (x / width + y / height) + rng.uniform(0, 6)) for _ in range(3)]
    return Image.fromarray(np.stack([grey * tint for tint in tints], axis=2).round().astype(np.uint8))


PICTURES: list[Image.Image] = []
"""Set by `odd_images`."""


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def alpha_of(image: Image.Image) -> Image.Image:
    """Alpha with all levels: transparent at the left, opaque at the right."""
    ramp = np.linspace(0, 255, image.width).round().astype(np.uint8)
    return Image.fromarray(np.tile(ramp, (image.height, 1)))


def rgba(index: int, width: int = 61, height: int = 50) -> Image.Image:
    """Add alpha to `base`."""
    image = base(index, width, height)
    image.putalpha(alpha_of(image))
    return image


def wide_grey(index: int, most: int = 65535) -> np.ndarray:
    """uint16 (57, 66), 0 to `most`."""
    grey = np.asarray(base(index, 66, 57).convert("L")).astype(np.float64)
    return (grey / grey.max() * most).astype(np.uint16)


def deep(name: str, source: Any, values: np.ndarray, most: int = 65535) -> OddImage:
    """An image of grey `values` (height, width) that go from 0 to `most`."""
    levels = (values.astype(np.float64) * 255 / most).round().astype(np.uint8)
    return OddImage(name, source, "grey of 16 bits", Image.fromarray(levels))


def odd_images(pictures: list[Image.Image]) -> list[OddImage]:
    """The list, from some small pictures that the model knows."""
    PICTURES[:] = pictures
    own = [image for kind in (modes, pngs, png_extras, sizes, refused) for image in kind()]
    make = SimpleNamespace(**globals())
    return own + [OddImage(*image) for kind in OTHER_FILES for image in kind(make)]


def modes() -> Iterator[OddImage]:
    """Pillow images in memory, of every mode."""

    def of(mode: str) -> Callable[[], Image.Image]:
        return lambda: base(len(mode), 45, 64).convert(mode)

    for mode in ("1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "RGBX", "I"):
        yield OddImage(f"mode {mode}", of(mode))
    for mode in ("LA", "RGBA"):
        yield OddImage(f"mode {mode}", lambda mode=mode: rgba(3).convert(mode))
    yield OddImage("mode RGBa", lambda: rgba(4).convert("RGBa"))
    grey = rgba(5).convert("LA").convert("La")
    yield OddImage("mode La", grey.copy, "premultiplied grey", grey.convert("LA"))
    indexed = base(6, 61, 50).convert("P").convert("PA")
    yield OddImage("mode PA", indexed.copy, "palette with alpha", indexed.convert("RGB"))
    yield OddImage("mode F", of("F"), "floats")
    for mode in ("I;16", "I;16L", "I;16B"):
        order = ">" if mode.endswith("B") else "<"
        values = wide_grey(7).astype(f"{order}u2")
        raw = values.tobytes()
        yield deep(f"mode {mode}", lambda mode=mode, raw=raw: Image.frombytes(mode, (66, 57), raw), wide_grey(7))
    for low, high in ((0, 65535), (0, 256), (0, 65536), (-1, 255)):
        ramp = np.linspace(low, high, 40 * 50).round().astype(np.int32).reshape(40, 50)
        image = deep(f"mode I, {low} to {high}", Image.fromarray(ramp).copy, ramp)
        yield image if low >= 0 and high <= 65535 else image._replace(how="grey beyond 16 bits")
    for name, transparency in (("an index", 3), ("bytes", bytes(range(0, 256, 2)))):
        picture = base(8, 50, 41).convert("P")
        picture.info["transparency"] = transparency
        yield OddImage(f"mode P, transparency by {name}", picture.copy)
    grey = base(9, 50, 41).convert("L")
    grey.info["transparency"] = 7
    yield OddImage("mode L, a transparent level", grey.copy)


def pngs() -> Iterator[OddImage]:
    """All fifteen kinds of the standard, plain and interlaced."""
    colours = bytes(np.random.default_rng(0).integers(0, 256, 768, dtype=np.uint8))
    for number, (channels, bits, is_palette) in enumerate(
        [(1, bits, False) for bits in (1, 2, 4, 8, 16)]
        + [(1, bits, True) for bits in (1, 2, 4, 8)]
        + [(channels, bits, False) for channels in (2, 3, 4) for bits in (8, 16)]
    ):
        rgb = np.asarray(base(number, 59, 43).convert("RGBA")).astype(np.uint32)
        rgb[..., 3] = np.asarray(alpha_of(base(number, 59, 43)))
        chosen = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
        samples = rgb[..., chosen] * 257 if bits == 16 else rgb[..., chosen] >> (8 - bits)
        palette = colours[: 3 << bits] if is_palette else None
        kind = "palette" if is_palette else {1: "grey", 2: "grey and alpha", 3: "RGB", 4: "RGBA"}[channels]
        for interlaced in (False, True):
            content = png(samples, bits, palette=palette, interlaced=interlaced)
            name = f"PNG, {kind}, {bits} bits{', interlaced' if interlaced else ''}"
            yield deep(name, content, samples[..., 0]) if (channels, bits) == (1, 16) else OddImage(name, content)


def png_extras() -> Iterator[OddImage]:
    """Transparency without alpha, chunks that say how colours are meant, animation."""
    rgb = np.asarray(base(1, 52, 52))
    grey, small = rgb[..., :1], rgb[..., :1] >> 4
    colours = bytes(range(48))
    yield OddImage("PNG, a transparent grey", png(grey, 8, chunks=((b"tRNS", b"\0\x20"),)))
    yield OddImage("PNG, a transparent colour", png(rgb, 8, chunks=((b"tRNS", bytes([0, 9, 0, 9, 0, 9])),)))
    yield OddImage(
        "PNG, transparent entries", png(small, 4, palette=colours, chunks=((b"tRNS", bytes(range(0, 96, 6))),))
    )
    yield OddImage("PNG, one transparent entry", png(small, 4, palette=colours, chunks=((b"tRNS", b"\xff\0"),)))
    wide = grey.astype(np.uint16)
    see_through = png(wide * 257, 16, chunks=((b"tRNS", b"\x20\x20"),))
    yield deep("PNG, 16 bits, a transparent grey", see_through, wide[..., 0] * 257)
    yield deep("PNG, 12 of 16 bits", png(wide * 16, 16), wide[..., 0] * 16)
    for name, chunk in {
        "gamma": (b"gAMA", (45455).to_bytes(4, "big")),
        "another gamma": (b"gAMA", (100000).to_bytes(4, "big")),
        "sRGB": (b"sRGB", b"\0"),
        "primaries": (
            b"cHRM",
            b"".join(v.to_bytes(4, "big") for v in (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        ),
        "a background": (b"bKGD", bytes([0, 200, 0, 10, 0, 10])),
        "significant bits": (b"sBIT", b"\5\6\5"),
        "a resolution": (b"pHYs", (2835).to_bytes(4, "big") + (1000).to_bytes(4, "big") + b"\1"),
        "text": (b"tEXt", b"Comment\0made by a test"),
    }.items():
        yield OddImage(f"PNG, {name}", png(rgb, 8, chunks=(chunk,)))
    frames = [base(number, 40, 40) for number in (2, 3)]
    yield OddImage("PNG, animated", encoded(frames[0], "PNG", save_all=True, append_images=frames[1:]))
    hidden = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=True)
    yield OddImage("PNG, animated after a default image", hidden)
    yield OddImage("PNG, followed by other bytes", png(rgb, 8) + b"rubbish" * 9)


def sizes() -> Iterator[OddImage]:
    """From one pixel on, with every remainder that the crop can leave, in one colour."""
    for number, (width, height) in enumerate(
        [
            *[(1, 1), (1, 40), (40, 1), (2, 3), (4, 4), (27, 28), (28, 27), (28, 28), (28, 29), (29, 28), (29, 29)],
            *[(57, 56), (31, 57), (57, 31), (99, 98), (101, 303), (400, 30), (30, 400), (9, 1000), (1000, 9)],
            *[(640, 427), (427, 640)],
        ]
    ):
        yield OddImage(f"{width} x {height}", encoded(base(number, width, height), "PNG"))
        if number < 6:
            few = base(number, width, height).convert("P")
            yield OddImage(f"{width} x {height}, palette", encoded(few, "PNG"))
    for name, colour in {"black": (0, 0, 0), "white": (255, 255, 255), "red": (255, 0, 0)}.items():
        yield OddImage(f"all {name}", encoded(Image.new("RGB", (50, 41), colour), "PNG"))
    yield OddImage("all transparent", encoded(Image.new("RGBA", (50, 41), (250, 30, 30, 0)), "PNG"))


def refused() -> Iterator[OddImage]:
    """Yield what neither side can read."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8))
    for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "TGA", "ICO", "PPM"):
        content = encoded(noise, kind)
        yield OddImage(f"{kind}, its first half", content[: len(content) // 2], NEITHER)
    yield OddImage("nothing", b"", NEITHER)
    yield OddImage("a text", b"not an image at all", NEITHER)
    yield OddImage("a header alone", b"\x89PNG\r\n\x1a\n", NEITHER)
    yield OddImage("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>', NEITHER)
    yield OddImage("PNG, a wrong checksum", png(np.asarray(noise), 8).replace(b"IDAT", b"IDAt"), NEITHER)
    yield OddImage("without pixels", lambda: Image.new("RGB", (0, 5)), NEITHER)
