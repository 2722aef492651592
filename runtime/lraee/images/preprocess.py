"""Turns an image into the square of uint8 pixels that a bundle's stem takes, exactly as open_clip does.

Equal bit for bit to `open_clip.image_transform(image_size, is_train=False, ...)` up to its ToTensor and Normalize, with
Pillow and numpy alone; for boards without Pillow see `lraee.images.resize`, for the exceptions docs/photos.md. The
order of arithmetic is that of torchvision: the long edge is truncated (`int(size * long / short)`) and the crop offset
rounded to even (`round((size - crop) / 2)`); a crop at `(size - crop) // 2` would be a pixel off for a quarter of all
sizes.

Mean and standard deviation are folded into the stem's weights; `normalize` is for comparing with torch.

Source: torchvision.transforms.functional (resize, center_crop) and open_clip.transform (ResizeKeepRatio,
center_crop_or_pad).
"""

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.preprocessing import Interpolation, Preprocessing
from lraee.errors import ImageError
from lraee.images.files import decoding
from lraee.images.read import Box, ImageSource, Pixels, check_pixels, open_picture
from lraee.images.reduced_jpeg import open_reduced
from lraee.images.resize import Picture, resize, size_of
from lraee.images.words import source_name
from lraee.reading import PLAIN_READING, Reading, Resizer

MAX_RESIZED_PIXELS = 2**26
"""An image so narrow that its resized copy, or the copy of which only the width is resized yet, would be larger than
this (192 MB) is refused: ratio 1:1,337 at 224."""

REDUCED_JPEG_KEEPS = 2
"""How many times the width and height that it is resized to a JPEG keeps that is decoded at reduced scale."""


def pixels(
    image: ImageSource, preprocessing: Preprocessing, *, name: str | None = None, reading: Reading = PLAIN_READING
) -> Pixels:
    """Resize and crop (or pad) one image to the model's input.

    Args:
        image: A path, encoded bytes, a Pillow image, or uint8 RGB (height, width, 3). Arrays need no Pillow; one that
            already has the right size is returned as it is.
        preprocessing: The bundle's.
        name: What error messages call the image.
        reading: The device's settings; by default what open_clip does.

    Returns:
        uint8 (image_size, image_size, 3), RGB, C-contiguous.

    Raises:
        ImageError: The image cannot be read, is larger than `reading` allows, or so narrow that resizing it would
            exhaust memory.
        MissingExtraError: Pillow is needed and not installed.
    """

    def needs(width: int, height: int) -> tuple[int, int]:
        width, height = resized_size(width, height, preprocessing)
        return REDUCED_JPEG_KEEPS * width, REDUCED_JPEG_KEEPS * height

    size = preprocessing.image_size
    picture: Picture
    box = None
    if isinstance(image, np.ndarray):
        picture = check_pixels(image, name=name)
        old_width, old_height = size_of(picture)
        if (old_width, old_height) == (size, size):
            return picture
    elif reading.reduce_jpeg:
        picture, (old_width, old_height), box = open_reduced(image, needs, name=name, reading=reading)
    else:
        picture = open_picture(image, name=name, reading=reading)
        old_width, old_height = picture.size
    width, height = resized_size(old_width, old_height, preprocessing)
    called = source_name(image, name)
    if width * max(height, old_height) > max(MAX_RESIZED_PIXELS, size * size):
        raise ImageError(
            f"{called} is {old_width} x {old_height} pixels, too narrow to classify: "
            f"it would be resized to {width} x {height}; crop it first"
        )
    resized = _resized(picture, (width, height), preprocessing.interpolation, reading.resize, box, called)
    if (width, height) == (size, size):
        return resized
    if preprocessing.resize_mode == "longest":
        return _pad(resized, size, preprocessing.fill_color)
    top, left = round((height - size) / 2), round((width - size) / 2)
    return np.array(resized[top : top + size, left : left + size])


def resized_size(width: int, height: int, preprocessing: Preprocessing) -> tuple[int, int]:
    """Width and height after resizing and before the crop or padding, in pixels.

    >>> clip = Preprocessing(image_size=224, resize_mode="shortest", interpolation="bicubic", mean=(0,)*3, std=(1,)*3)
    >>> resized_size(500, 375, clip)
    (298, 224)
    """
    size = preprocessing.image_size
    if preprocessing.resize_mode == "squash":
        return size, size
    if preprocessing.resize_mode == "longest":
        ratio = max(height / size, width / size)
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    if width <= height:
        return size, int(size * height / width)
    return int(size * width / height), size


def check_preprocessed(batch: object, preprocessing: Preprocessing) -> None:
    """Refuse all but pixels as `pixels` gives them, stacked to a batch of at least one image.

    Raises:
        ImageError: it is not an array, or has another type or shape.
    """
    size = preprocessing.image_size
    if not isinstance(batch, np.ndarray):
        raise ImageError(f"pixels are a {type(batch).__name__}, wanted a uint8 array (batch, {size}, {size}, 3)")
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != (size, size, 3) or not len(batch):
        raise ImageError(f"pixels are {batch.dtype} {batch.shape}, wanted uint8 (batch, {size}, {size}, 3)")


def normalize(batch: Pixels, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Do what ToTensor and Normalize do, bit for bit, for comparing a bundle with torch.

    Args:
        batch: uint8 (batch, height, width, 3), RGB; one image (height, width, 3) counts as a batch of one.
        preprocessing: Gives mean and standard deviation.

    Returns:
        float32 (batch, 3, height, width), C-contiguous.

    Raises:
        ImageError: `batch` has another type or shape.
    """
    if batch.dtype != np.uint8 or batch.ndim not in (3, 4) or batch.shape[-1] != 3:
        raise ImageError(f"got {batch.dtype} {batch.shape}; wanted uint8 (batch, height, width, 3)")
    planes = batch.reshape(-1, *batch.shape[-3:]).transpose(0, 3, 1, 2)
    values = np.ascontiguousarray(planes).astype(np.float32) / np.float32(255)
    values -= np.array(preprocessing.mean, dtype=np.float32)[:, None, None]
    values /= np.array(preprocessing.std, dtype=np.float32)[:, None, None]
    return values


def _resized(
    picture: Picture, size: tuple[int, int], interpolation: Interpolation, by: Resizer, box: Box | None, name: str
) -> Pixels:
    if isinstance(picture, np.ndarray):
        return resize(picture, *size, interpolation, by, box=box)
    return decoding(name, lambda: resize(picture, *size, interpolation, by, box=box))


def _pad(picture: Pixels, size: int, fill_color: int) -> Pixels:
    height, width, _ = picture.shape
    top, left = (size - height) // 2, (size - width) // 2
    padded = np.full((size, size, 3), fill_color, dtype=np.uint8)
    padded[top : top + height, left : left + width] = picture
    return padded
