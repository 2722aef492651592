"""Match the classes of a labelled data set with the labels of a bundle."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lraee.errors import DataError
from lraee_calibration_data.dataset import Dataset
from lraee_calibration_data.shipped import imagenet_labels, imagenet_synsets


def label_rows(dataset: Dataset, labels: Sequence[str]) -> NDArray[np.int64]:
    """The row of the label embeddings that is right for each image, (images,) int64.

    Folders are matched with the labels by name; of labels that occur twice the first row counts, since an answer is
    never the second. Folders named by ImageNet's WordNet ids are matched with ImageNet's 1,000 labels by position.

    Raises:
        DataError: the data set has no labels, or one that is not among `labels`.
    """
    dataset.targets  # noqa: B018 raises the data set's own message when there are no labels
    position = {name: row for row, name in reversed(list(enumerate(labels)))}
    if tuple(labels) == tuple(imagenet_labels()) and set(dataset.labels) <= set(imagenet_synsets()):
        position = {synset: position[labels[row]] for row, synset in enumerate(imagenet_synsets())}
    for label in dataset.labels:
        if label not in position:
            known = ", ".join(labels[:10]) + (", …" if len(labels) > 10 else "")
            raise DataError(
                f"{dataset.source} has images of {label!r}, which is none of the {len(labels)} labels ({known}); "
                "name its folders like the labels, or pass --labels to lraee-export"
            )
    return np.array([position[sample.label or ""] for sample in dataset.samples], np.int64)
