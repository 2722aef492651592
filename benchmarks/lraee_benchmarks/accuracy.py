"""Top-1 accuracy of each row on labelled images, and how it differs from full depth on the same images.

Not timed. A bundle with random weights has no accuracy, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lraee.errors import DataError
from lraee.manifest import Manifest
from lraee_benchmarks.intervals import mean_interval
from lraee_benchmarks.results import Accuracy
from lraee_benchmarks.variants import Variant
from lraee_calibration_data import Dataset, label_rows, load_pixels

_BATCH = 32


def check_accuracy_possible(manifest: Manifest) -> None:
    """Refuse a bundle whose accuracy means nothing.

    Raises:
        DataError: its weights are random.
    """
    if manifest.model.is_random:
        raise DataError(
            f"the weights of {manifest.model.id} are {manifest.model.weights}, so its accuracy means nothing; "
            "leave out --accuracy, or export it with lraee-export --pretrained"
        )


def answers_right(
    variants: Sequence[Variant[Any]],
    dataset: Dataset,
    manifest: Manifest,
    labels: Sequence[str],
    *,
    on_progress: Callable[[float], None] | None = None,
) -> NDArray[np.bool_]:
    """Whether each variant's best label is right, (images, variants) bool.

    Two labels of one name (ImageNet has such) count as one.

    Raises:
        DataError: a label is unknown, or an image cannot be read.
    """
    truth = label_rows(dataset, labels)
    same_name = np.unique(np.array(labels), return_inverse=True)[1]
    right = np.empty((len(dataset), len(variants)), np.bool_)
    for rows in dataset.batches(_BATCH):
        pixels = load_pixels(dataset, manifest.preprocessing, rows).pixels
        for index, variant in enumerate(variants):
            best = variant.read(variant.run(pixels)).probabilities.argmax(axis=1)
            right[rows, index] = same_name[best] == same_name[truth[rows]]
        if on_progress is not None:
            on_progress(rows.stop / len(dataset))
    return right


def summarize_accuracy(right: NDArray[np.bool_], full: NDArray[np.bool_], *, seed: int) -> Accuracy:
    """Top-1 and its difference to full depth.

    Args:
        right: (images,) bool, of the row.
        full: (images,) bool, of the full chain on the same images.
        seed: of the bootstrap.
    """
    difference = right.astype(np.float64) - full
    return Accuracy(
        images=len(right),
        top1=float(right.mean()),
        interval=mean_interval(right.astype(np.float64), seed=seed),
        difference=float(difference.mean()),
        difference_interval=mean_interval(difference, seed=seed),
    )
