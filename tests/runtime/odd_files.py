"""Photos, animations and rare files for `odd_images`: every format that Pillow reads but PNG.

`make` is the module `odd_images`, as a namespace.
"""

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, features

WRITE = runpy.run_path(str(Path(__file__).with_name("image_writers.py")))
tiff, bmp, packed = WRITE["tiff"], WRITE["bmp"], WRITE["packed"]


def jpegs(make: Any) -> Iterator[Any]:
    """Every coding and colour that Pillow writes, profiles, orientations, what cameras add."""
    photo = make.base(0, 97, 71)
    for name, options in {
        "baseline": {}, "progressive": {"progressive": True}, "optimised": {"optimize": True}, "bad": {"quality": 5},
        "good": {"quality": 100}, "colour at full size": {"subsampling": 0}, "colour at half width": {"subsampling": 1},
        "colour at half size": {"subsampling": 2}, "a resolution": {"dpi": (300, 72)},
        "a comment": {"comment": b"made by a test"},
    }.items():  # fmt: skip
        yield make.OddImage(f"JPEG, {name}", make.encoded(photo, "JPEG", **options))
    yield make.OddImage("JPEG, grey", make.encoded(photo.convert("L"), "JPEG"))
    cmyk = make.encoded(photo.convert("CMYK"), "JPEG")
    yield make.OddImage("JPEG, CMYK, inverted by Adobe", cmyk)
    adobe = cmyk.index(b"\xff\xee")
    length = 2 + int.from_bytes(cmyk[adobe + 2 : adobe + 4], "big")
    yield make.OddImage("JPEG, CMYK, without Adobe's mark", cmyk[:adobe] + cmyk[adobe + length :])
    ycck = bytearray(cmyk)
    ycck[adobe + length - 1] = 2
    yield make.OddImage("JPEG, YCCK", bytes(ycck))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    yield make.OddImage("JPEG, a colour profile", make.encoded(photo, "JPEG", icc_profile=profile))
    for orientation in range(1, 10):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield make.OddImage(
            f"JPEG, orientation {orientation}", make.encoded(make.base(orientation, 53, 80), "JPEG", exif=exif)
        )
    plain = make.encoded(photo, "JPEG")
    yield make.OddImage("JPEG, followed by other bytes", plain + b"rubbish" * 99)
    yield make.OddImage("JPEG, without its end", plain[:-2], make.NEITHER)
    yield make.OddImage(
        "MPO, two pictures", make.encoded(photo, "MPO", save_all=True, append_images=[make.base(1, 97, 71)])
    )


def gifs(make: Any) -> Iterator[Any]:
    """Of an animation the first frame."""
    image = make.base(2, 63, 49)
    indexed = image.convert("P", palette=Image.Palette.ADAPTIVE)
    yield make.OddImage("GIF", make.encoded(indexed, "GIF"))
    yield make.OddImage("GIF, not interlaced", make.encoded(indexed, "GIF", interlace=0))
    yield make.OddImage("GIF, grey", make.encoded(image.convert("L"), "GIF"))
    yield make.OddImage("GIF, black and white", make.encoded(image.convert("1"), "GIF"))
    yield make.OddImage("GIF, few colours", make.encoded(image.quantize(4), "GIF"))
    yield make.OddImage("GIF, a transparent entry", make.encoded(indexed, "GIF", transparency=5))
    yield make.OddImage("GIF, a background", make.encoded(indexed, "GIF", background=9))
    frames = [make.base(number, 63, 49).convert("P", palette=Image.Palette.ADAPTIVE) for number in (3, 4)]
    for disposal in (0, 1, 2):
        content = make.encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=disposal, loop=0)
        yield make.OddImage(f"GIF, animated, disposal {disposal}", content)
    whole = bytearray(make.encoded(indexed, "GIF"))
    whole[6:10] = (80).to_bytes(2, "little") + (66).to_bytes(2, "little")
    yield make.OddImage("GIF, a first frame smaller than the screen", bytes(whole))
    at = whole.index(b",\0\0\0\0")
    whole[at + 1 : at + 5] = (9).to_bytes(2, "little") + (5).to_bytes(2, "little")
    yield make.OddImage("GIF, a first frame in the middle of the screen", bytes(whole))


def webps(make: Any) -> Iterator[Any]:
    """And AVIF and JPEG 2000, where this Pillow has them."""
    image, exif = make.base(5, 70, 55), Image.Exif()
    exif[0x0112] = 3
    yield make.OddImage("WebP", make.encoded(image, "WEBP"))
    yield make.OddImage("WebP, without loss", make.encoded(image, "WEBP", lossless=True))
    yield make.OddImage("WebP, alpha", make.encoded(make.rgba(5), "WEBP"))
    yield make.OddImage("WebP, alpha, without loss", make.encoded(make.rgba(5), "WEBP", lossless=True, exact=True))
    yield make.OddImage("WebP, upside down", make.encoded(image, "WEBP", exif=exif))
    frames = [make.rgba(number, 40, 50) for number in (6, 7)]
    yield make.OddImage("WebP, animated", make.encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    if "avif" in features.modules and features.check("avif"):  # older Pillows do not know the word
        yield make.OddImage("AVIF", make.encoded(image, "AVIF"))
        yield make.OddImage("AVIF, alpha", make.encoded(make.rgba(5), "AVIF"))
    if features.check("jpg_2000"):
        yield make.OddImage("JPEG 2000", make.encoded(image, "JPEG2000"))
        yield make.OddImage(
            "JPEG 2000, with loss", make.encoded(image, "JPEG2000", irreversible=True, quality_layers=[20])
        )
        yield make.OddImage("JPEG 2000, alpha", make.encoded(make.rgba(5), "JPEG2000"))
        yield make.OddImage("JPEG 2000, grey", make.encoded(image.convert("L"), "JPEG2000"))
        yield make.deep(
            "JPEG 2000, 16 bits", make.encoded(Image.fromarray(make.wide_grey(5)), "JPEG2000"), make.wide_grey(5)
        )


def bmps(make: Any) -> Iterator[Any]:
    """Pixels of 1 to 32 bits, from the bottom or the top."""
    image = make.base(6, 47, 58)
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield make.OddImage(f"BMP, {mode}", make.encoded(image.convert(mode), "BMP"))
    blue_first = np.asarray(image)[..., ::-1]
    yield make.OddImage("BMP, from the top", bmp([row.tobytes() for row in blue_first], 47, 24, up=False))
    colours = b"".join(bytes([16 * level, 255 - 16 * level, 8 * level, 0]) for level in range(16))
    few = np.asarray(image.convert("L")) >> 4
    yield make.OddImage("BMP, 4 bits", bmp([packed(row[None], 4) for row in few], 47, 4, palette=colours))
    red, green, blue = (np.asarray(image)[..., channel].astype(np.uint16) for channel in range(3))
    low = (red >> 3 << 10) | (green >> 3 << 5) | (blue >> 3)
    yield make.OddImage("BMP, 15 bits", bmp([row.astype("<u2").tobytes() for row in low], 47, 16))
    high = (red >> 3 << 11) | (green >> 2 << 5) | (blue >> 3)
    masks = b"".join(mask.to_bytes(4, "little") for mask in (0xF800, 0x7E0, 0x1F))
    yield make.OddImage(
        "BMP, 16 bits with masks", bmp([row.astype("<u2").tobytes() for row in high], 47, 16, masks=masks)
    )
    yield make.OddImage("DIB", make.encoded(image, "DIB"))


def tiffs(make: Any) -> Iterator[Any]:
    """Modes, compressions, planes, tiles and byte orders."""
    image = make.base(7, 72, 54)
    for mode in ("1", "L", "P", "RGB", "CMYK", "LAB"):
        yield make.OddImage(f"TIFF, {mode}", make.encoded(image.convert(mode), "TIFF"))
    yield make.OddImage("TIFF, LA", make.encoded(make.rgba(7).convert("LA"), "TIFF"))
    yield make.OddImage("TIFF, RGBA", make.encoded(make.rgba(7), "TIFF"))
    if features.check("libtiff"):
        for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
            yield make.OddImage(f"TIFF, {compression}", make.encoded(image, "TIFF", compression=compression))
        predicted = make.encoded(image, "TIFF", compression="tiff_lzw", tiffinfo={317: 2})
        yield make.OddImage("TIFF, tiff_lzw of differences", predicted)
        yield make.OddImage("TIFF, a fax", make.encoded(image.convert("1"), "TIFF", compression="group4"))
    pages = make.encoded(image, "TIFF", save_all=True, append_images=[make.base(8, 30, 90)])
    yield make.OddImage("TIFF, two pages", pages)
    yield make.OddImage("TIFF, on its side", make.encoded(image, "TIFF", tiffinfo={274: 6}))
    rgb, grey = np.asarray(image), np.asarray(image.convert("L"))[..., None]
    for order in "<>":
        end = "little" if order == "<" else "big"
        yield make.OddImage(f"TIFF, {end}-endian", tiff(rgb, 8, order=order))
        yield make.OddImage(f"TIFF, {end}-endian, planes", tiff(rgb, 8, order=order, planar=True))
        yield make.OddImage(f"TIFF, {end}-endian, tiles", tiff(rgb, 8, order=order, tile=32))
        yield make.OddImage(f"TIFF, {end}-endian, RGB of 16 bits", tiff(rgb.astype(np.uint16) * 257, 16, order=order))
    yield make.OddImage("TIFF, white is 0", tiff(grey, 8, photometric=0))
    yield make.OddImage("TIFF, tiles of grey", tiff(grey, 8, tile=16))
    yield make.OddImage("TIFF, 4 bits", tiff(grey >> 4, 4))


def tiff_integers(make: Any) -> Iterator[Any]:
    """Grey of 12, 16 and 32 bits, and floats."""
    grey = np.asarray(make.base(8, 55, 60).convert("L")).astype(np.int32)[..., None]
    for order in "<>":
        end = "little" if order == "<" else "big"
        wide = make.wide_grey(8)
        yield make.deep(f"TIFF, {end}-endian, grey of 16 bits", tiff(wide[..., None], 16, order=order), wide)
        yield make.OddImage(f"TIFF, {end}-endian, 32 bits of 0 to 255", tiff(grey, 32, order=order, sample_format=2))
    unsigned = tiff(grey, 32)
    yield make.OddImage("TIFF, 32 bits of 0 to 255, unsigned", unsigned)
    yield make.deep("TIFF, 32 bits of 0 to 65535", tiff(grey * 257, 32, sample_format=2), grey[..., 0] * 257)
    yield make.OddImage("TIFF, 32 bits and more", tiff(grey * 65536, 32, sample_format=2), "grey beyond 16 bits")
    yield make.deep("TIFF, 12 bits", tiff(grey * 16, 12), grey[..., 0] * 16, most=4095)
    yield make.deep("TIFF, 16 bits with a sign", tiff(grey * 128, 16, sample_format=2), grey[..., 0] * 128)
    yield make.OddImage("TIFF, floats of 0 to 1", tiff(grey / 255, 32, sample_format=3), "floats")
    yield make.OddImage("TIFF, floats of 0 to 255", tiff(grey, 32, sample_format=3), "floats")


def rare_formats(make: Any) -> Iterator[Any]:
    """Yield files in other formats that Pillow reads."""
    image, exact = make.base(9, 64, 64), make.base(10, 66, 51)
    grey = np.asarray(exact.convert("L"))
    for size in (16, 64):
        yield make.OddImage(f"ICO of {size}", make.encoded(make.rgba(9, 64, 64), "ICO", sizes=[(size, size)]))
    yield make.OddImage("ICO of several sizes", make.encoded(image, "ICO", sizes=[(16, 16), (32, 32), (64, 64)]))
    yield make.OddImage(
        "ICO with a BMP", make.encoded(make.rgba(9, 64, 64), "ICO", sizes=[(32, 32)], bitmap_format="bmp")
    )
    yield make.OddImage("ICNS", make.encoded(make.rgba(9, 64, 64), "ICNS"))
    for mode in ("1", "L", "RGB"):
        yield make.OddImage(f"PPM, {mode}", make.encoded(exact.convert(mode), "PPM"))
    text = " ".join(map(str, np.asarray(exact).ravel())).encode()
    yield make.OddImage("PPM, as text", b"P3\n# by a test\n66 51\n255\n" + text)
    yield make.OddImage("PGM, fewer levels", b"P5 66 51 100\n" + (grey * (100 / 255)).astype(np.uint8).tobytes())
    wide = make.wide_grey(10)
    yield make.deep("PGM, 16 bits", b"P5 66 57 65535\n" + wide.astype(">u2").tobytes(), wide)
    yield make.deep("PGM, 10 bits", b"P5 66 57 1023\n" + (wide >> 6).astype(">u2").tobytes(), wide >> 6, most=1023)
    for mode in ("L", "LA", "P", "RGB", "RGBA"):
        picture = make.rgba(10) if mode.endswith("A") else exact
        yield make.OddImage(f"TGA, {mode}", make.encoded(picture.convert(mode), "TGA"))
    yield make.OddImage("TGA, compressed", make.encoded(exact, "TGA", compression="tga_rle"))
    for mode in ("1", "L", "P", "RGB"):
        yield make.OddImage(f"PCX, {mode}", make.encoded(exact.convert(mode), "PCX"))
    for mode in ("L", "RGB", "RGBA"):
        yield make.OddImage(f"SGI, {mode}", make.encoded(exact.convert(mode), "SGI"))
        yield make.OddImage(f"DDS, {mode}", make.encoded(exact.convert(mode), "DDS"))
    yield make.OddImage("MSP", make.encoded(exact.convert("1"), "MSP"))
    yield make.OddImage("XBM", make.encoded(exact.convert("1"), "XBM"))
    yield make.OddImage("BLP", make.encoded(image.convert("P"), "BLP"))
    yield make.OddImage("SPIDER", make.encoded(exact.convert("F"), "SPIDER"), "floats")


ALL = (jpegs, gifs, webps, bmps, tiffs, tiff_integers, rare_formats)
