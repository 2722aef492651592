"""Views of an image that the float tower answers together, so that heads learn from a better answer than its own.

A tower that sees an image as it is, mirrored and cropped, and averages, is right more often than with one look
(test-time augmentation). It costs nothing at run time, since only the training asks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LEAST_AREA = 0.5
"""Smallest share of an image's area that a crop keeps."""


def view(pixels: NDArray[np.uint8], number: int, *, first: int, flip: bool, seed: int) -> NDArray[np.uint8]:
    """Make one view of each image of a batch; the same for the same seed and rows, in whatever batches they come.

    View 0 is the image itself. With `flip`, odd views are mirrored, and view 1 is the image mirrored. All others are
    square crops at random places, of a random half or more of the area, enlarged to the image's size.

    Args:
        pixels: (images, size, size, 3).
        number: of the view, from 0.
        first: row of the batch's first image among all.
        flip: whether views are mirrored; wrong for text.
        seed: of the crops.
    """
    mirrored = flip and number % 2 == 1
    if number >= (2 if flip else 1):
        crops = [_crop(image, np.random.default_rng((seed, number, first + at))) for at, image in enumerate(pixels)]
        pixels = np.stack(crops)
    return np.ascontiguousarray(pixels[:, :, ::-1] if mirrored else pixels)


def _crop(image: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    side = float(np.sqrt(generator.uniform(LEAST_AREA, 1.0)))
    left, top = generator.uniform(0.0, 1.0 - side, 2) * (width, height)
    box = (left, top, left + side * width, top + side * height)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC, box=box))
