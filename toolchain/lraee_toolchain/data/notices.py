"""Read the images of an export before anything that takes long, and say what was passed over, left out or too few."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

from lraee_calibration_data import (
    Dataset,
    check_classes_are_read,
    passed_over_words,
    printable,
    skipped_words,
    some_words,
)
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.splits import Splits, load_pixel_set


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesRead:
    """What became of the images of an export, for the splits that it uses."""

    images: dict[str, int]
    """Images that were read, by split."""
    rows: dict[str, int]
    """Rows of pixels, views included, by split."""
    skipped: dict[str, dict[str, str]]
    """Reason of each image that could not be read, by its path in the source, by split; splits without are missing."""
    passed_over: dict[str, dict[str, int]]
    """How many files are not images, by the end of their names, by the option that named the source."""
    notices: list[str] = field(default_factory=list)
    """What the user was told."""


def read_images(
    config: ExportConfig,
    splits: Splits,
    pixels: Callable[[Dataset, int], Path],
    *,
    with_labels: bool,
    is_random: bool,
    notice: Callable[[str], None],
) -> ImagesRead:
    """Preprocess the splits that this export uses and count what was read.

    Args:
        config: of the export.
        splits: its images.
        pixels: preprocesses a split with that many views and gives the folder of `save_pixels`.
        with_labels: whether heads and gates learn from labels.
        is_random: whether the weights are; then nothing is evaluated.
        notice: called at once with each thing that the user should know.

    Raises:
        DataError: an image cannot be read and such are refused, or all of a split or of a class.
    """
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(printable(text))
        notice(told[-1])

    passed_over = {}
    for option, dataset in _given(config, splits).items():
        passed_over[option] = dict(dataset.passed_over)
        if text := passed_over_text(dataset):
            tell(f"{option} {dataset.source.name}: {text}")
    if config.train is not None and not splits.train.labels and config.exits != "none":
        tell(f"--train {splits.train.source.name} has no class folders: heads and gates learn without labels")
    images, rows, skipped = {}, {}, {}
    for name, views in used_splits(config, splits, is_random=is_random).items():
        found = load_pixel_set(pixels(splits.named()[name], views))
        images[name], rows[name] = found.images, len(found.pixels)
        if found.skipped:
            skipped[name] = found.skipped
            tell(f"{skipped_words([*found.skipped.values()])} ({name} images)")
    of_train = {
        key: reason
        for name, reasons in skipped.items()
        if splits.named()[name].source == splits.train.source
        for key, reason in reasons.items()
    }
    if with_labels:
        check_classes_are_read(splits.train, of_train)
    if splits.evaluation is not None and "evaluation" in images and config.evaluate is not None:
        check_classes_are_read(splits.evaluation, skipped.get("evaluation", {}))
    if with_labels and config.exits != "none" and (text := too_few_text(splits, of_train)):
        tell(text)
    return ImagesRead(images=images, rows=rows, skipped=skipped, passed_over=passed_over, notices=told)


def _given(config: ExportConfig, splits: Splits) -> dict[str, Dataset]:
    """Collect the sources that the user named, by option."""
    given = {
        "--train": splits.train if config.train is not None else None,
        "--calibration": splits.calibration if config.calibration is not None else None,
        "--evaluate": splits.evaluation if config.evaluate is not None else None,
    }
    return {option: dataset for option, dataset in given.items() if dataset is not None}


def used_splits(config: ExportConfig, splits: Splits, *, is_random: bool) -> dict[str, int]:
    """Say which splits this export looks at, and how many views of each image."""
    quantizes = config.precision == "int8"
    uses = {
        "calibration": quantizes or config.baselines,
        "heads": config.exits != "none",
        "gating": config.exits != "none" or quantizes,
        "promise": True,
        "evaluation": not is_random,
    }
    views = {"calibration": splits.views, "heads": splits.views}
    return {name: views.get(name, 1) for name in splits.named() if uses[name]}


def passed_over_text(dataset: Dataset) -> str:
    """Say what a source holds besides images; empty when there is nothing else."""
    words = [f"passed over {passed_over_words(dataset.passed_over)}"] if dataset.passed_over else []
    words += [f"no image in {some_words(dataset.without_images)}"] if dataset.without_images else []
    return "; ".join(words)


def too_few_text(splits: Splits, skipped: Collection[str]) -> str:
    """Say which classes have no image to learn from, to fit gates on or, where some are held back, to be evaluated on.

    Empty when all have.

    Args:
        splits: labelled.
        skipped: paths of training images that could not be read.
    """
    found = []
    classes = {sample.label for sample in splits.train.samples if sample.label is not None}
    purposes = {"gating": "judge gates by", "heads": "train heads with"}
    if splits.evaluation is not None and splits.evaluation.source == splits.train.source:
        purposes["evaluation"] = "evaluate on"
    for name, purpose in purposes.items():
        there = {sample.label for sample in splits.named()[name].samples if sample.key not in skipped}
        if missing := sorted(classes - there):
            found.append(f"no image to {purpose} for {some_words([f'{label!r}' for label in missing])}")
    return f"--train {splits.train.source.name} has too few images: {'; '.join(found)}; give more" if found else ""
