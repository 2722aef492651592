"""The images of a measurement: a fixed random choice, preprocessed once, which is timed separately.

Rows get pixels, so that no row's latency contains reading or resizing; a device with a camera pays neither.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import ModelInfo
from lraee.bundle.preprocessing import Preprocessing as PixelsWanted
from lraee.errors import DataError, ImageError, MissingExtraError
from lraee.images.preprocess import pixels as preprocess
from lraee.images.read import INSTALL_PILLOW, Pixels, open_picture
from lraee_benchmarks.results.conditions import Preprocessing
from lraee_calibration_data import (
    Dataset,
    Unreadable,
    fashion_mnist_sample,
    fashion_mnist_test,
    open_dataset,
    passed_over_words,
    photos,
    printable,
    skipped_words,
    with_reason,
)

SHIPPED_SOURCES = {"fashion-mnist": fashion_mnist_test, "photos": photos}
"""Images that come with the package, by the name that stands for them on the command line."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """The images that a measurement runs."""

    source: str
    """A folder, a zip, or the name of shipped images."""
    batches: tuple[Pixels, ...]
    """Each (batch, size, size, 3) uint8."""
    first_image: bytes
    """An encoded image of the source for cold starts, or ``.npy`` of pixels where Pillow is missing."""
    preprocessing_ms: NDArray[np.float64] | None
    """(images, 2) float64: reading and decoding, then resizing, of each; None where Pillow is missing."""
    notes: tuple[str, ...] = ()
    """What of the source was passed over or could not be read."""


def open_source(source: str, *, unreadable: Unreadable = "refuse") -> Dataset:
    """Open a folder or zip, or shipped images by name: ``fashion-mnist`` (its test half, labelled) or ``photos``.

    A folder or file of that name goes first.

    Args:
        source: which.
        unreadable: whether an image that cannot be read is an error or left out and named.

    Raises:
        DataError: there is nothing of that name, or no image in it.
    """
    path = Path(source)
    if not path.exists() and source in SHIPPED_SOURCES:
        path = SHIPPED_SOURCES[source]()
    return open_dataset(path, unreadable=unreadable)


def passed_over_notes(source: str, dataset: Dataset) -> tuple[str, ...]:
    """Say in one sentence which files of a user's source are not images, if any."""
    if not dataset.passed_over or (source in SHIPPED_SOURCES and dataset.source == SHIPPED_SOURCES[source]()):
        return ()
    return (f"Passed over in {source}, since they are not images: {passed_over_words(dataset.passed_over)}.",)


def skipped_notes(source: str, skipped: Sequence[str]) -> tuple[str, ...]:
    """Say in one sentence which images could not be read, if any.

    Args:
        source: where they lie.
        skipped: what is wrong with each, its name included.
    """
    return (printable(f"Of {source}, {skipped_words(skipped)}."),) if skipped else ()


def files_instead(source: str | None) -> str | None:
    """Say that a name of shipped images is taken for a file or folder of that name, where it is; else None."""
    if source not in SHIPPED_SOURCES or not Path(source).exists():
        return None
    return f"{source} is taken to be {Path(source).absolute()}, not the shipped images of that name"


def default_source(model: ModelInfo) -> str:
    """Name the shipped images that suit a model."""
    return "fashion-mnist" if model.weights.startswith("reference") else "photos"


def load_sample(
    source: str, wanted: PixelsWanted, *, count: int, batch: int, seed: int, unreadable: Unreadable = "refuse"
) -> Sample:
    """Choose images and preprocess them.

    Args:
        source: as in `open_source`.
        wanted: the bundle's preprocessing.
        count: images at most; rounded down to whole batches.
        batch: images of a batch.
        seed: fixes the choice.
        unreadable: as in `open_source`; images that are left out make room for others.

    Raises:
        DataError: the source is missing or has fewer images than a batch, or an image cannot be read.
        MissingExtraError: Pillow is not installed, and the images are not those that are shipped decoded as well.
    """
    if source == "fashion-mnist" and not Path(source).exists() and find_spec("PIL") is None:
        return _decoded_sample(wanted, count=count, batch=batch, seed=seed)
    dataset = open_source(source, unreadable=unreadable)
    if len(dataset) < batch:
        raise DataError(f"{source} has {len(dataset)} images, a batch has {batch}; give more images or a smaller batch")
    order = [int(index) for index in np.random.default_rng(seed).permutation(len(dataset))]
    whole = min(max(count // batch, 1), len(dataset) // batch)
    chosen: list[int] = []
    found: list[tuple[Pixels, tuple[float, float]]] = []
    skipped: list[str] = []
    for index in order:
        if len(chosen) == whole * batch:
            break
        try:
            if not found:
                _timed_pixels(dataset, wanted, index)  # the first pays for importing Pillow
            found.append(_timed_pixels(dataset, wanted, index))
        except ImageError as error:
            named = with_reason(error, dataset.samples[index].key)
            if unreadable == "refuse":
                raise DataError(f"{named}; remove the file", setting="unreadable") from error
            skipped.append(str(named))
        else:
            chosen.append(index)
    whole = len(chosen) // batch
    if not whole:
        raise DataError(
            f"{source} has {len(chosen)} images that can be read, a batch has {batch}; give more images or a smaller "
            f"batch; {skipped_words(skipped)}"
        )
    pixels, elapsed_ms = zip(*found[: whole * batch], strict=True)
    return Sample(
        source=source,
        batches=tuple(np.split(np.concatenate(pixels), whole)),
        first_image=dataset.read_bytes(chosen[0]),
        preprocessing_ms=np.array(elapsed_ms),
        notes=(*passed_over_notes(source, dataset), *skipped_notes(source, skipped)),
    )


def _decoded_sample(wanted: PixelsWanted, *, count: int, batch: int, seed: int) -> Sample:
    """Repeat shipped pixels to the bundle's size, so that a board measures the reference without Pillow."""
    grey = fashion_mnist_sample()
    factor, rest = divmod(wanted.image_size, grey.shape[1])
    if rest or (factor > 1 and wanted.interpolation != "nearest"):
        raise MissingExtraError(
            f"images of {wanted.image_size} pixels are made by resizing, which needs Pillow: {INSTALL_PILLOW}"
        )
    if len(grey) < batch:
        raise DataError(f"{len(grey)} images are shipped decoded, a batch has {batch}; wanted a smaller batch")
    whole = min(max(count // batch, 1), len(grey) // batch)
    chosen = np.random.default_rng(seed).permutation(len(grey))[: whole * batch]
    large = grey[chosen].repeat(factor, axis=1).repeat(factor, axis=2)
    pixels = np.ascontiguousarray(np.broadcast_to(large[..., None], (*large.shape, 3)))
    encoded = io.BytesIO()
    np.save(encoded, pixels[0], allow_pickle=False)
    return Sample(
        source="fashion-mnist, decoded beforehand",
        batches=tuple(np.split(pixels, whole)),
        first_image=encoded.getvalue(),
        preprocessing_ms=None,
    )


def summarize_preprocessing(elapsed_ms: NDArray[np.float64] | None) -> Preprocessing | None:
    """Summarize times (images, 2) in milliseconds, decoding and resizing; None when nothing was preprocessed."""
    if elapsed_ms is None:
        return None
    both = elapsed_ms.sum(axis=1)
    p50, p90 = np.percentile(both, [50, 90])
    decode, resize = np.median(elapsed_ms, axis=0)
    return Preprocessing(
        images=len(both),
        decode_p50_ms=float(decode),
        resize_p50_ms=float(resize),
        p50_ms=float(p50),
        p90_ms=float(p90),
        mean_ms=float(both.mean()),
    )


def _timed_pixels(dataset: Dataset, wanted: PixelsWanted, index: int) -> tuple[Pixels, tuple[float, float]]:
    """(1, size, size, 3), and milliseconds of reading and decoding, and of resizing."""
    name = dataset.name(index)
    start = time.perf_counter_ns()
    image = open_picture(dataset.read_bytes(index), name=name)
    decoded = time.perf_counter_ns()
    pixels = preprocess(image, wanted, name=name)[None]
    return pixels, ((decoded - start) / 1e6, (time.perf_counter_ns() - decoded) / 1e6)
