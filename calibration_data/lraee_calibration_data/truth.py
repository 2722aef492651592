"""Match the classes of a labelled data set with the labels of a bundle."""

import difflib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lraee.errors import DataError
from lraee.labels.label_set import normal_form
from lraee_calibration_data.dataset import Dataset
from lraee_calibration_data.shipped import imagenet_labels, imagenet_synsets

NOT_IN_NAMES = "/\\:"
"""Characters that a folder's name cannot hold on one system or another."""


def label_rows(
    dataset: Dataset,
    labels: Sequence[str],
    folders: Sequence[tuple[str, str]] = (),
    *,
    advice: str = "name its folders like the labels",
) -> NDArray[np.int64]:
    """Find the right row of the label embeddings for each image, (images,) int64.

    Folders are matched with the labels by name, both in Unicode's composed form; of labels that occur twice the first
    row counts, since an answer is never the second. Folders named by ImageNet's WordNet ids are matched with ImageNet's
    1,000 labels by position.

    Args:
        dataset: labelled by its folders.
        labels: of the bundle, in the order of its rows.
        folders: folder and label of folders that are called otherwise, as `LabelSet.folders`.
        advice: what the caller can do about a folder without a label.

    Raises:
        DataError: the data set has no labels, or one that is not among `labels`; or a folder of a label has no image.
    """
    dataset.targets  # noqa: B018 raises the data set's own message when there are no labels
    position = {normal_form(name): row for row, name in reversed(list(enumerate(labels)))}
    if tuple(labels) == tuple(imagenet_labels()) and set(dataset.labels) <= set(imagenet_synsets()):
        position = {synset: position[labels[row]] for row, synset in enumerate(imagenet_synsets())}
    for folder, label in folders:
        if normal_form(label) not in position:
            raise DataError(
                f"the label file gives the folder {folder!r} the label {label!r}, which is none of the {len(labels)} "
                "labels; give it one of them"
            )
        position[normal_form(folder)] = position[normal_form(label)]
    if unknown := [label for label in dataset.labels if label not in position]:
        mapped = {normal_form(label) for _, label in folders}
        odd = [name for name in labels if set(name) & set(NOT_IN_NAMES) and normal_form(name) not in mapped]
        raise DataError(_unknown_words(dataset, unknown, labels, position, advice, odd))
    empty = [folder for folder in dataset.without_images if normal_form(folder.rsplit("/", 1)[-1]) in position]
    if empty:
        raise DataError(
            f"{dataset.source} has no image of {empty[0]!r}: its folder holds none; add some, or remove the folder"
        )
    return np.array([position[sample.label or ""] for sample in dataset.samples], np.int64)


def check_classes_are_read(dataset: Dataset, skipped: Mapping[str, str]) -> None:
    """Refuse a labelled data set with a class of which no image can be read.

    Args:
        dataset: the images that were read.
        skipped: reason of each that could not be, by its key.

    Raises:
        DataError: a class has no image left; the message has one reason.
    """
    left = {sample.label for sample in dataset.samples if sample.key not in skipped}
    for sample in dataset.samples:
        if sample.label is not None and sample.label not in left:
            raise DataError(
                f"{dataset.source} has no image of {sample.label!r} that can be read, such as: {skipped[sample.key]}; "
                "give readable ones, or remove the folder"
            )


def _unknown_words(
    dataset: Dataset,
    unknown: Sequence[str],
    labels: Sequence[str],
    known: Iterable[str],
    advice: str,
    odd: Sequence[str],
) -> str:
    """Describe folders that are not labels, and the nearest labels."""
    more = f" and of {len(unknown) - 1} more folders, which are" if len(unknown) > 1 else ", which is"
    some = ", ".join(labels[:10]) + (", …" if len(labels) > 10 else "")
    text = f"{dataset.source} has images of {unknown[0]!r}{more} none of the {len(labels)} labels ({some}); {advice}"
    by_case = {name.casefold(): name for name in known}
    if close := difflib.get_close_matches(unknown[0].strip().casefold(), by_case, n=1, cutoff=0.8):
        text += f"; the nearest label to {unknown[0]!r} is {by_case[close[0]]!r}"
    if odd:
        text += f"; no folder can be called {odd[0]!r}: a label file has a line of folder, tab, label for it"
    return text
