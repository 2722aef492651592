"""Lists what counts as an image, by the ends of file names, and what this Pillow reads of it."""

import os

from lraee.images.read import import_pillow, pillow_is_installed

_FORMATS = {
    "JPEG": ".jpg .jpeg .jpe .jfif .mpo",
    "PNG": ".png .apng",
    "WebP": ".webp",
    "BMP": ".bmp .dib",
    "GIF": ".gif",
    "TIFF": ".tif .tiff",
    "AVIF": ".avif .avifs",
    "HEIF": ".heic .heif .hif .heics .heifs",
    "JPEG 2000": ".jp2 .j2k .j2c .jpc .jpf .jpx",
    "JPEG XL": ".jxl",
    "PPM": ".ppm .pgm .pbm .pnm",
    "TGA": ".tga",
    "QOI": ".qoi",
    "PCX": ".pcx",
}

_FORMAT_OF = {suffix: name for name, suffixes in _FORMATS.items() for suffix in suffixes.split()}

SUFFIXES = frozenset(_FORMAT_OF)
"""File names that count as images, in small or capital letters, whether this Pillow reads them or not."""

_ALWAYS = {"JPEG", "PNG", "BMP", "GIF", "TIFF", "PPM", "TGA", "PCX"}
"""Formats that every build of Pillow reads."""

_OTHERWISE = {
    "AVIF": ", or install Pillow 11.3 or newer",
    "HEIF": ", or in Python call pillow_heif.register_heif_opener() of the package pillow-heif",
    "JPEG XL": ", or in Python import pillow_jxl of the package pillow-jxl-plugin",
}


def is_image_name(name: str) -> bool:
    """Tell whether a file is an image by its name.

    >>> is_image_name("Tom.JFIF"), is_image_name("Tom.txt")
    (True, False)
    """
    return _suffix(name) in SUFFIXES


def why_unreadable(name: str) -> str:
    """Say why this Pillow reads no file that ends like `name`, and what to do; empty where it does.

    It is also empty without Pillow, since decoding an image says so then.
    """
    suffix = _suffix(name)
    kind = _FORMAT_OF.get(suffix, "")
    if not kind or kind in _ALWAYS or not pillow_is_installed() or _reads(suffix):
        return ""
    import PIL

    return f"this Pillow ({PIL.__version__}) reads no {kind}: save it as PNG or JPEG{_OTHERWISE.get(kind, '')}"


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _known_to_pillow(suffix: str) -> bool:
    """Tell whether Pillow, with the plugins that are registered by now, opens files of a suffix."""
    pillow = import_pillow("decoding an image file")
    pillow.init()
    return pillow.registered_extensions().get(suffix) in pillow.OPEN


def _reads(suffix: str) -> bool:
    if _FORMAT_OF[suffix] == "JPEG 2000":  # registered by builds without the library as well
        from PIL import features

        return bool(features.check("jpg_2000"))
    return _known_to_pillow(suffix)
