"""Decide which images serve which purpose: calibration, heads, gating, risk control, evaluation. None serves two."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.preprocessing import Preprocessing
from lraee.bundle.strict_json import read_json, write_json
from lraee.errors import DataError
from lraee.images.preprocess import pixels as preprocess
from lraee.labels.label_set import LabelSet
from lraee_calibration_data import (
    Dataset,
    augmented_crops,
    check_disjoint,
    fashion_mnist_pool,
    label_rows,
    open_dataset,
    photos,
    split,
)
from lraee_exporters.loading.sources import REFERENCE_NAMES
from lraee_toolchain.array_file import ArrayFile, save_array
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.decoding import decode

FRACTIONS = {"calibration": 0.05, "heads": 0.65, "gating": 0.30}
"""Of a training set that also gives the calibration images."""

FEW_IMAGES = 1000
"""Below this many pictures the calibration share is raised to `FEW_FRACTIONS`, and each gives several crops."""

FEW_FRACTIONS = {"calibration": 0.40, "heads": 0.40, "gating": 0.20}

HELD_BACK_SEED = 0
"""Of the division that holds evaluation images back. It is not the export's seed, so that exports with other seeds, and
an export of a trunk that was tuned by another one, are judged on pictures that none of them learned from."""

CROPS = 4
"""Views of one picture when there are few: the whole one and random crops."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splits:
    """Holds the images of an export by purpose."""

    train: Dataset
    """The source that the splits were divided from; evaluation images that were held back are among them."""
    calibration: Dataset
    heads: Dataset
    gating: Dataset
    promise: Dataset | None
    """Images that only the betting test of risk control sees; None when no guarantee was asked for."""
    evaluation: Dataset | None
    views: int
    """Views of each calibration and heads image; 1 is the image alone."""

    def named(self) -> dict[str, Dataset]:
        """Return the splits that exist, by name."""
        named = {"calibration": self.calibration, "heads": self.heads, "gating": self.gating}
        named |= {} if self.promise is None else {"promise": self.promise}
        return named | ({} if self.evaluation is None else {"evaluation": self.evaluation})

    def check(self) -> None:
        """Refuse splits that share a picture."""
        check_disjoint(self.named())


RENAME = "name its folders like the labels, give other --labels, or map folders to labels in the label file"


def open_splits(config: ExportConfig, labels: LabelSet, *, seed: int) -> Splits:
    """Open the sources of an export and divide them by picture.

    Args:
        config: names the sources; without `train`, the reference models take the shipped Fashion-MNIST pool and every
            other model the shipped photos, which is enough to try things out, not to learn good exits.
        labels: the bundle's labels; a labelled source must use these names, or folders that these map to names.
        seed: of the division.

    Raises:
        DataError: a source is missing or too small, two splits share a picture, a label is unknown, or some images of
            `train` lie in class folders and some do not, and nothing says that labels are not wanted; or images shall
            be held back for evaluation and have no labels.
    """
    default = fashion_mnist_pool() if config.model in REFERENCE_NAMES else photos()
    train = open_dataset(config.train or default, unreadable=config.unreadable)
    _check_labels(train, labels, config)
    learned, evaluation = _held_out(train, labels, config)
    few = len(learned) < FEW_IMAGES
    fractions = dict(FEW_FRACTIONS if few else FRACTIONS)
    calibration = None
    if config.calibration is not None:
        calibration = open_dataset(config.calibration, unreadable=config.unreadable)
        share = fractions.pop("calibration")
        fractions = {name: value / (1 - share) for name, value in fractions.items()}
    if config.promise is not None:
        fractions["promise"] = fractions["gating"] / 2
        fractions["gating"] -= fractions["promise"]
    parts = {name: learned.subset(indices) for name, indices in split(learned, fractions, seed).items()}
    splits = Splits(
        train=train,
        calibration=calibration if calibration is not None else parts["calibration"],
        heads=parts["heads"],
        gating=parts["gating"],
        promise=parts.get("promise"),
        evaluation=evaluation,
        views=CROPS if few else 1,
    )
    splits.check()
    return splits


def _held_out(train: Dataset, labels: LabelSet, config: ExportConfig) -> tuple[Dataset, Dataset | None]:
    """Give the images to learn from, and those that only the report looks at."""
    if config.evaluate_share is not None:
        label_rows(train, labels.names, labels.folders, advice=RENAME)
        fractions = {"evaluation": config.evaluate_share, "learned": 1 - config.evaluate_share}
        parts = split(train, fractions, HELD_BACK_SEED)
        return train.subset(parts["learned"]), train.subset(parts["evaluation"])
    if config.evaluate is None:
        return train, None
    evaluation = open_dataset(config.evaluate, unreadable=config.unreadable)
    label_rows(evaluation, labels.names, labels.folders, advice=RENAME)
    return train, evaluation


def _check_labels(train: Dataset, labels: LabelSet, config: ExportConfig) -> None:
    """Refuse training images whose labels would be dropped, or mean nothing, without a word."""
    if config.supervision == "label-free":
        return
    without = "pass --supervision label-free to learn without labels"
    if train.obstacle:
        raise DataError(
            f"{train.source}: {train.obstacle}, so that nobody can tell its classes; wanted one folder for each label "
            f"and all images in them: move these, or {without}"
        )
    if train.labels:
        advice = f"{RENAME}; if its folders are no classes, {without}"
        label_rows(train, labels.names, labels.folders, advice=advice)
    elif config.supervision == "labels":
        raise DataError(f"{train.source} has no labels; {without}, or give one folder for each label")


@dataclass(frozen=True, slots=True, eq=False)
class PixelSet:
    """Holds the preprocessed images of one split."""

    pixels: NDArray[np.uint8]
    """(rows, size, size, 3) uint8, memory-mapped."""
    source: NDArray[np.int64]
    """(rows,) which image of the split each row is a view of."""
    skipped: dict[str, str]
    """Why an image could not be read, by its path in the source; empty unless the data set skips such."""

    @property
    def images(self) -> int:
        """Count the images that were read, whatever their number of views."""
        return len(np.unique(self.source))


def save_pixels(
    dataset: Dataset, preprocessing: Preprocessing, folder: Path, *, views: int, seed: int, workers: int | None = None
) -> None:
    """Preprocess a split once into ``pixels.npy``, ``source.npy`` and ``skipped.json``.

    Args:
        dataset: the split.
        preprocessing: of the tower.
        folder: empty.
        views: rows of each image; those after the first are random crops.
        seed: of the crops.
        workers: threads that decode, which changes no byte; see `lraee_toolchain.data.decoding`.

    Raises:
        DataError: an image cannot be read and the data set refuses such, or none can be.
    """
    size = preprocessing.image_size
    rows = len(dataset) * views
    source: list[int] = []
    skipped: dict[str, str] = {}
    with ArrayFile(folder / "pixels.npy", np.uint8, (rows, size, size, 3)) as pixels:
        for loaded in decode(dataset, preprocessing, workers=workers):
            skipped |= {key: reason.replace(f"{dataset.source}/", "") for key, reason in loaded.skipped}
            pixels.write(len(source), loaded.pixels)
            source += loaded.indices
            if views > 1:
                for index in loaded.indices:
                    for view in augmented_crops(dataset.read(index), views - 1, seed):
                        pixels.write(len(source), preprocess(view, preprocessing))
                        source.append(index)
        if not source:
            reason = next(iter(skipped.values()))
            raise DataError(f"no image of {dataset.source} can be read, such as: {reason}; give others")
        pixels.shorten(len(source))
    save_array(folder / "source.npy", np.array(source, np.int64))
    write_json(skipped, folder / "skipped.json")


def load_pixel_set(folder: Path) -> PixelSet:
    """Open what `save_pixels` wrote."""
    return PixelSet(
        np.load(folder / "pixels.npy", mmap_mode="r"),
        np.load(folder / "source.npy"),
        read_json(dict[str, str], folder / "skipped.json"),
    )
