"""Choose example images for the report, by the block after which they left."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

import lraee
from lraee.engine.orchestrator import joined
from lraee_toolchain.parts.runner import batches

LARGEST = 96
"""Pixels of a picture's longer side, at most; small pictures stay as they are."""

IMAGES = 500
"""Of an evaluation split, spread over it, among which `run_pictures` chooses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One image and what the model said of it."""

    block: int
    """Block after which it left; the depth when it ran to the end."""
    early: bool
    """Whether it left through an exit."""
    label: str | None
    """The true label, or None when unknown."""
    predicted: str
    right: bool | None
    """None when the true label is unknown."""
    png: bytes


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """Images and what the model answered."""

    pixels: NDArray[np.uint8]
    """(images, size, size, 3) RGB."""
    exit_block: NDArray[np.integer]
    """(images,) where each left."""
    early: NDArray[np.bool_]
    """(images,) whether through an exit."""
    predicted: NDArray[np.integer]
    """(images,) label index."""
    classes: NDArray[np.integer] | None
    """(images,) true label index, or None when unknown."""


def choose_pictures(images: Answered, label_names: Sequence[str], *, each: int = 8, seed: int) -> list[Picture]:
    """Draw pictures at random for every exit and for full depth, so that they show what is usual.

    Args:
        images: to choose from.
        label_names: by index.
        each: most pictures for one place.
        seed: of the draw.

    Returns:
        By depth, full depth last; within one place in the order of `images`.
    """
    early, exit_block, classes = images.early, images.exit_block, images.classes
    places = [(int(block), True) for block in np.unique(exit_block[early])]
    places += [(int(block), False) for block in np.unique(exit_block[~early])]
    pictures = []
    for block, through_exit in places:
        rows = np.flatnonzero((exit_block == block) & (early == through_exit))
        chosen = np.random.default_rng([seed, block, through_exit]).permutation(rows)[:each]
        for row in np.sort(chosen).tolist():
            truth = None if classes is None else int(classes[row])
            pictures.append(
                Picture(
                    block=block,
                    early=through_exit,
                    label=None if truth is None else label_names[truth],
                    predicted=label_names[int(images.predicted[row])],
                    right=None if truth is None else truth == int(images.predicted[row]),
                    png=to_png(images.pixels[row]),
                )
            )
    return pictures


def to_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encode (height, width, 3) uint8 RGB as PNG of `LARGEST` pixels at most."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def run_pictures(
    bundle: Path,
    pixels: NDArray[np.uint8],
    classes: NDArray[np.integer] | None,
    *,
    images: int = IMAGES,
    each: int = 8,
    seed: int = 0,
) -> list[Picture]:
    """Run a bundle at its default operating point and choose pictures.

    Args:
        bundle: folder.
        pixels: (images, size, size, 3) uint8, preprocessed; may be memory-mapped.
        classes: (images,) true label index, or None.
        images: how many to run, spread over `pixels`, which is often sorted by label.
        each: see `choose_pictures`.
        seed: see `choose_pictures`.
    """
    model = lraee.load(bundle)
    rows = np.unique(np.linspace(0, len(pixels) - 1, min(images, len(pixels))).astype(np.int64))
    few = np.ascontiguousarray(pixels[rows])
    answers = joined([model.run_pixels(batch) for batch in batches(few)])
    answered = Answered(
        pixels=few,
        exit_block=answers.exit_block,
        early=answers.early,
        predicted=answers.probabilities.argmax(axis=1),
        classes=None if classes is None else classes[rows],
    )
    return choose_pictures(answered, model.labels, each=each, seed=seed)
