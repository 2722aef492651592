"""Identifies a picture by its file, whatever the file is called and whatever was written into its metadata.

Photo collections pass on the same JPEG with another comment or EXIF block. A hash of the whole file would take the two
for different pictures, and one could be trained on while the other is tested on; so a JPEG's metadata is left out.
A picture that was resized or compressed again has another digest.
"""

import hashlib

_START_OF_SCAN = 0xDA
_COMMENT = 0xFE
_APPLICATION = range(0xE0, 0xF0)
_ADOBE = 0xEE  # says how colours are coded, so it belongs to the picture


def picture_digest(content: bytes) -> str:
    """Compute the SHA-256, in hexadecimal, of an image file without the comments and application segments of a JPEG."""
    return hashlib.sha256(_without_jpeg_metadata(content)).hexdigest()


def _without_jpeg_metadata(content: bytes) -> bytes:
    """Drop COM and APPn segments (except Adobe's) before the first scan; anything odd is returned unchanged."""
    if not content.startswith(b"\xff\xd8"):
        return content
    kept = [content[:2]]
    position = 2
    while position + 4 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker == _START_OF_SCAN:
            kept.append(content[position:])
            return b"".join(kept)
        end = position + 2 + int.from_bytes(content[position + 2 : position + 4], "big")
        if marker == _ADOBE or not (marker == _COMMENT or marker in _APPLICATION):
            kept.append(content[position:end])
        position = end
    return content
