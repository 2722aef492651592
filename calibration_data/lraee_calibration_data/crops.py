"""Cuts random views out of a photo, so that a hundred photos calibrate like a thousand.

Apply it after `split`: views of one photo in two splits would be a leak.
"""

import math
import zlib

import numpy as np

from lraee.images.read import Pixels, check_pixels

AREA = (0.35, 1.0)
"""Smallest and largest share of the image's area that a view shows."""

ASPECT = (3 / 4, 4 / 3)
"""Smallest and largest ratio of a view's width to its height."""


def augmented_crops(image: Pixels, count: int, seed: int) -> list[Pixels]:
    """Cut random rectangles out of an image and mirror half of them; the caller resizes them.

    The geometry is that of torchvision's RandomResizedCrop: area uniform, aspect uniform on a logarithmic scale; a
    rectangle that does not fit is clipped to the image.

    Args:
        image: uint8 (height, width, 3).
        count: Number of views, 0 or more.
        seed: Fixes the views of this image. Different images get different rectangles from one seed.

    Returns:
        `count` arrays uint8 (crop height, crop width, 3), C-contiguous.

    Raises:
        ImageError: `image` is not uint8 (height, width, 3).
    """
    image = check_pixels(image)
    height, width, _ = image.shape
    random = np.random.default_rng([seed, zlib.crc32(image.tobytes())])
    views: list[Pixels] = []
    for _ in range(count):
        pixels = random.uniform(*AREA) * height * width
        ratio = math.exp(random.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
        crop_width = min(width, max(1, round(math.sqrt(pixels * ratio))))
        crop_height = min(height, max(1, round(math.sqrt(pixels / ratio))))
        top = int(random.integers(height - crop_height + 1))
        left = int(random.integers(width - crop_width + 1))
        view = image[top : top + crop_height, left : left + crop_width]
        if random.random() < 0.5:
            view = view[:, ::-1]
        views.append(np.ascontiguousarray(view))
    return views
