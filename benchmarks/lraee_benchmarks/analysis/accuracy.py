"""Top-1 accuracy of each row on labelled images, and how it differs from full depth on the same images.

Not timed. A bundle with random weights has no accuracy, and is refused.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.errors import DataError
from lraee_benchmarks.analysis.intervals import mean_interval
from lraee_benchmarks.results.model import Accuracy


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
