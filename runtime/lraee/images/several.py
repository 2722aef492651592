"""Reads several images, some of which may be damaged: says which one it was, and lets the caller go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lraee.checks import check_count
from lraee.errors import ImageError, SettingsError
from lraee.images.read import ImageSource, Pixels, is_pillow_image

Read: TypeAlias = Callable[[ImageSource], Pixels]
"""From an image to the model's square of pixels."""

OnError: TypeAlias = Callable[[ImageError], object]
"""Is told of each image that cannot be read, which is then left out."""


def check_on_error(on_error: object) -> None:
    """Refuse an `on_error` that cannot be called.

    Raises:
        SettingsError: it is neither None nor a function.
    """
    if on_error is not None and not callable(on_error):
        raise SettingsError(
            f"on_error is a {type(on_error).__name__}, wanted a function that takes an ImageError, such as "
            "errors.append of a list, or None to stop at the first"
        )


def batches(images: Iterable[ImageSource], batch_size: int) -> Iterator[tuple[int, list[ImageSource]]]:
    """Yield the position of the first image of each batch, and its images, which are taken when they are needed."""
    check_count("batch_size", batch_size, ImageError)
    waiting, begin = iter(several(images)), 0
    while batch := list(islice(waiting, batch_size)):
        yield begin, batch
        begin += len(batch)


def read_batch(
    read: Read, images: Sequence[ImageSource], begin: int, on_error: OnError | None
) -> tuple[list[int], NDArray[np.uint8]]:
    """Read the images of a batch.

    Args:
        read: reads one.
        images: at least one.
        begin: place of the first in the call.
        on_error: is told of those that cannot be read; None raises.

    Returns:
        Places of those that were read, and their pixels (images, size, size, 3); the latter is empty if there are none.

    Raises:
        ImageError: an image cannot be read and `on_error` is None.
    """
    places: list[int] = []
    pixels: list[Pixels] = []
    for place, image in enumerate(images, start=begin):
        read_one = _try(read, image, place, on_error)
        if read_one is not None:
            places.append(place)
            pixels.append(read_one)
    return places, np.stack(pixels) if pixels else np.empty((0,), np.uint8)


def read_stream(
    read: Read, images: Iterable[ImageSource], on_error: OnError | None, missing: set[int]
) -> Iterator[Pixels | None]:
    """Read images as they are needed; None stands for one that cannot be read; its position is added to `missing`.

    Raises:
        ImageError: as `read_batch`.
    """
    for place, image in enumerate(images):
        pixels = _try(read, image, place, on_error)
        if pixels is None:
            missing.add(place)
        yield pixels


def several(images: Iterable[ImageSource]) -> Iterable[ImageSource]:
    """Refuse one image where several are wanted: the letters of a path, or rows of pixels, would each be taken for one.

    Raises:
        ImageError: it is a single image, or cannot be iterated.
    """
    is_one = isinstance(images, str | bytes | bytearray | memoryview | os.PathLike) or is_pillow_image(images)
    if isinstance(images, np.ndarray) and images.ndim < 4:
        is_one = True
    if is_one or not isinstance(images, Iterable):
        met = "one image" if is_one else f"a {type(images).__name__}"
        raise ImageError(f"images is {met}, wanted several, such as a list; put a single one into a list: [image]")
    return images


def _try(read: Read, image: ImageSource, place: int, on_error: OnError | None) -> Pixels | None:
    try:
        return read(image)
    except ImageError as error:
        placed = ImageError(f"images[{place}]: {error}", setting=error.setting)
        placed.position = place
        if on_error is None:
            raise placed from error
        placed.__cause__ = error
    on_error(placed)  # outside the handler, so that its own errors are not chained to this one
    return None
