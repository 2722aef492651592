"""Judge whether the best label of each row is right, on labelled images; this is not timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee_benchmarks.images import open_source
from lraee_benchmarks.rows.policy_rows import Variant
from lraee_calibration_data import Unreadable, check_classes_are_read, label_rows, load_pixels

_BATCH = 32

_ADVICE = "name its folders like the bundle's labels, or map them to labels in a file and give it with --labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledSource:
    """Labelled images, and how their folders are to be understood."""

    source: str
    """A folder, a zip, or the name of shipped images."""
    unreadable: Unreadable = "refuse"
    """Whether an image that cannot be read is an error or left out."""
    folders: tuple[tuple[str, str], ...] = ()
    """Folder and label of folders that are not called like their label."""


class Judged(NamedTuple):
    """Which answers are right, and which images could not be read."""

    right: NDArray[np.bool_]
    """(images that were read, variants): whether the best label is right."""
    skipped: tuple[str, ...]
    """What is wrong with each image that could not be read."""


def check_labels(labelled: LabelledSource, labels: Sequence[str]) -> None:
    """Find out before measuring whether the folders are labels of the bundle.

    Raises:
        DataError: they are not, or the source is missing.
    """
    label_rows(open_source(labelled.source), labels, labelled.folders, advice=_ADVICE)


def answers_right(
    variants: Sequence[Variant[Any]],
    labelled: LabelledSource,
    manifest: Manifest,
    labels: Sequence[str],
    *,
    on_progress: Callable[[float], None] | None = None,
) -> Judged:
    """Judge whether each variant's best label is right.

    Two labels of one name (ImageNet has such) count as one.

    Raises:
        DataError: a label is unknown, an image cannot be read and such are refused, or none of a class can be.
    """
    dataset = open_source(labelled.source, unreadable=labelled.unreadable)
    truth = label_rows(dataset, labels, labelled.folders, advice=_ADVICE)
    same_name = np.unique(np.array(labels), return_inverse=True)[1]
    right: list[NDArray[np.bool_]] = []
    skipped: dict[str, str] = {}
    for rows in dataset.batches(_BATCH):
        loaded = load_pixels(dataset, manifest.preprocessing, rows)
        skipped |= dict(loaded.skipped)
        if loaded.indices:
            wanted = same_name[truth[list(loaded.indices)]]
            best = [variant.read(variant.run(loaded.pixels)).probabilities.argmax(axis=1) for variant in variants]
            right.append(np.stack([same_name[labels_of] == wanted for labels_of in best], axis=1))
        if on_progress is not None:
            on_progress(rows.stop / len(dataset))
    check_classes_are_read(dataset, skipped)
    return Judged(np.concatenate(right), tuple(skipped.values()))
