"""Measure how photos become pixels: resizing without Pillow against Pillow, and JPEGs decoded at reduced scale.

    python benchmarks/experiments/photos.py --images photos.zip --count 500 --bundle reference

Prints the largest difference in levels and the share of values that differ, the cosine of embeddings, and medians of
times on one thread. Large photos are mosaics of the given ones, so that they have detail in every pixel.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.bundle.preprocessing import Preprocessing
from lraee.images.preprocess import pixels
from lraee.images.read import Pixels
from lraee.reading import Reading
from lraee_benchmarks.running.rounds import time_in_turn
from lraee_calibration_data import open_dataset, photos

FRAMES = ((640, 480), (1920, 1080), (4000, 3000))
"""Width and height of what is timed."""

ODD_SIZES = 300


def clip(image_size: int = 224, interpolation: str = "bicubic") -> Preprocessing:
    """Make CLIP's preprocessing."""
    return Preprocessing(
        image_size=image_size,
        resize_mode="shortest",
        interpolation=interpolation,  # type: ignore[arg-type] # one of Pillow's names
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
    )


def pieces(images: list[Pixels], count: int) -> Iterator[Pixels]:
    """Parts of images with odd sizes, 1 pixel or more."""
    generator = np.random.default_rng(1)
    for image in islice(cycle(images), count):
        height, width = (int(generator.integers(1, edge + 1)) for edge in image.shape[:2])
        yield image[:height, :width]


def mosaic(images: list[Pixels], width: int, height: int, first: int = 0) -> Pixels:
    """Images side by side, each cut to 256 x 256, beginning with image `first`."""
    tiles = [image[:256, :256] for image in images if min(image.shape[:2]) >= 256]
    rows, columns = -(-height // 256), -(-width // 256)
    chosen = islice(cycle(tiles), first, None)
    bands = [np.concatenate(list(islice(chosen, columns)), axis=1) for _ in range(rows)]
    return np.ascontiguousarray(np.concatenate(bands)[:height, :width])


def compare(images: Iterator[Pixels] | list[Pixels], preprocessing: Preprocessing, reading: Reading) -> str:
    """Say how far pixels are from Pillow's."""
    largest = different = values = count = 0
    for image in images:
        wanted = pixels(image, preprocessing, reading=Reading(resize="pillow")).astype(np.int16)
        apart = np.abs(pixels(image, preprocessing, reading=reading) - wanted)
        largest = max(largest, int(apart.max()))
        different += int(np.count_nonzero(apart))
        values += apart.size
        count += 1
    return f"{count} images, at most {largest} levels apart, {different / values:.4%} of values differ"


def median_ms(ways: dict[str, Callable[[], object]], rounds: int) -> str:
    """Say the median time of each way; they take turns."""
    medians = np.median(time_in_turn(list(ways.values()), rounds), axis=0)
    return ", ".join(f"{name} {ms:.2f} ms" for name, ms in zip(ways, medians, strict=True))


def encode(image: Pixels) -> bytes:
    """Encode as JPEG of quality 90."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def report_resizing(images: list[Pixels]) -> None:
    """Print fidelity and time of resizing."""
    for interpolation, ways in (("bicubic", ("onnx", "numpy")), ("bilinear", ("numpy",)), ("nearest", ("numpy",))):
        for way in ways:
            reading = Reading(resize=way)  # type: ignore[arg-type] # two of its names
            print(f"{interpolation} by {way}, photos: {compare(images, clip(224, interpolation), reading)}")
            odd = compare(pieces(images, ODD_SIZES), clip(224, interpolation), reading)
            print(f"{interpolation} by {way}, odd sizes: {odd}")
    for width, height in FRAMES:
        frame = mosaic(images, width, height)
        ways_to_time: dict[str, Callable[[], object]] = {
            name: partial(pixels, frame, clip(), reading=Reading(resize=name))  # type: ignore[arg-type] # its names
            for name in ("pillow", "onnx", "numpy")
        }
        print(f"bicubic, array {width} x {height} to 224: {median_ms(ways_to_time, 15)}")


def report_reduced(contents: list[bytes], images: list[Pixels], bundle: str) -> None:
    """Print what JPEGs decoded at reduced scale cost and save."""
    reduced, plain = Reading(reduce_jpeg=True), Reading()
    for scale in (2, 4, 8):
        means = []
        for content, image in zip(contents, images, strict=True):
            smaller = clip(min(image.shape[:2]) // (2 * scale))
            apart = pixels(content, smaller).astype(np.int16) - pixels(content, smaller, reading=reduced)
            means.append(float(np.abs(apart).mean()))
        print(f"1/{scale}: {len(means)} photos, mean {np.mean(means):.2f} levels apart, the worst {max(means):.2f}")

    model = lraee.load(bundle, threads=1)
    size = model.manifest.preprocessing.image_size
    large = [encode(mosaic(images, 16 * size + 5, 12 * size + 3, first)) for first in range(0, len(images), 5)][:100]
    for name, sources in (("photos", contents), ("mosaics of 16 x 12 times the model's size", large)):
        square = [
            (pixels(one, model.manifest.preprocessing), pixels(one, model.manifest.preprocessing, reading=reduced))
            for one in sources
        ]
        cosine = (model.embed([a for a, _ in square]) * model.embed([b for _, b in square])).sum(axis=1)
        print(f"{bundle}, {name}: {describe(cosine)}")
    for width, height in FRAMES:
        content = encode(mosaic(images, width, height))
        ways: dict[str, Callable[[], object]] = {
            "whole": partial(pixels, content, clip(), reading=plain),
            "reduced": partial(pixels, content, clip(), reading=reduced),
        }
        print(f"JPEG {width} x {height} to 224: {median_ms(ways, 15)}")


def describe(cosine: NDArray[np.float32]) -> str:
    """Say the mean and the smallest cosine."""
    return f"{len(cosine)} images, cosine of embeddings {cosine.mean():.5f} in the mean, {cosine.min():.5f} at least"


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, default=photos(), help="folder or zip; by default the shipped photos")
    parser.add_argument("--count", type=int, default=500, help="of images, spread over them")
    parser.add_argument("--bundle", default="reference", help="whose embeddings are compared")
    options = parser.parse_args()
    dataset = open_dataset(options.images)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, options.count).astype(int))
    contents = [dataset.read_bytes(int(index)) for index in chosen]
    images = [lraee.images.read.read_image(content) for content in contents]
    report_resizing(images)
    report_reduced(contents, images, options.bundle)


if __name__ == "__main__":
    main()
