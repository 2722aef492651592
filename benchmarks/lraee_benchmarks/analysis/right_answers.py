"""Which images a policy answers right, as a short text: records of several runs can then be paired image by image."""

from __future__ import annotations

import base64
import binascii

import numpy as np
from numpy.typing import NDArray

from lraee.errors import DataError


def pack_right(right: NDArray[np.float64]) -> str:
    """Write what is right as base64 of bits, the first image in the highest bit of the first byte.

    Args:
        right: (images,) 1 where the answer is right, else 0.

    >>> pack_right(np.array([1.0, 0, 0, 0, 0, 0, 0, 1, 1]))
    'gYA='
    """
    return base64.b64encode(np.packbits(right != 0).tobytes()).decode()


def unpack_right(text: str, images: int) -> NDArray[np.float64]:
    """Read what `pack_right` wrote, (images,) float64 of 0 and 1.

    Args:
        text: base64.
        images: how many there are.

    Raises:
        DataError: the text does not hold as many images.

    >>> unpack_right("gYA=", 9)
    array([1., 0., 0., 0., 0., 0., 0., 1., 1.])
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except binascii.Error as error:
        raise DataError(f"right answers are {text[:20]!r}..., wanted base64; measure them again") from error
    if len(packed) != -(-images // 8):
        raise DataError(f"right answers are of {8 * len(packed)} images or a few less, wanted {images}; measure again")
    return np.unpackbits(packed, count=images).astype(np.float64)
