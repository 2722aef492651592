"""Accuracy: labels by name, paired with full depth, never for random weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lraee import load
from lraee.bundle.manifest import Manifest
from lraee.errors import DataError
from lraee_benchmarks.analysis.accuracy import check_accuracy_possible, summarize_accuracy
from lraee_benchmarks.rows.answers import LabelledSource, answers_right, check_labels
from lraee_benchmarks.rows.policy_rows import Variant
from lraee_calibration_data import Dataset, imagenet_labels, imagenet_synsets, label_rows, open_dataset


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Of the shipped bundle, for images of 2 x 2 pixels."""
    manifest = load("reference").manifest
    return dataclasses.replace(manifest, preprocessing=dataclasses.replace(manifest.preprocessing, image_size=2))


def labelled(root: Path, images: dict[str, list[int]]) -> Dataset:
    """A folder for each label with images of one grey level each."""
    for label, greys in images.items():
        (root / label).mkdir()
        for number, grey in enumerate(greys):
            Image.new("RGB", (2, 2), (grey,) * 3).save(root / label / f"{number}.png")
    return open_dataset(root)


def test_labels_are_matched_by_name_not_by_order(tmp_path: Path) -> None:
    """The bundle's order differs from the alphabet."""
    dataset = labelled(tmp_path, {"ant": [0], "bee": [0, 0], "cat": [0]})
    assert label_rows(dataset, ("cat", "ant", "bee")).tolist() == [1, 2, 2, 0]


def test_a_label_that_the_bundle_does_not_know_is_named(tmp_path: Path) -> None:
    """With the labels that it does know."""
    dataset = labelled(tmp_path, {"ant": [0], "bee": [0]})
    with pytest.raises(DataError, match=r"images of 'bee', which is none of the 2 labels \(ant, cat\)"):
        label_rows(dataset, ("ant", "cat"))


def test_images_without_labels_are_refused(tmp_path: Path) -> None:
    """The message says how to label them."""
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="has no labels; put the images into one folder per class"):
        label_rows(open_dataset(tmp_path), ("a", "b"))


def test_folders_of_imagenet_ids_are_matched_by_position(tmp_path: Path) -> None:
    """As the validation set is usually unpacked."""
    synsets = imagenet_synsets()
    dataset = labelled(tmp_path, {synsets[7]: [0], synsets[3]: [0]})
    assert sorted(label_rows(dataset, imagenet_labels()).tolist()) == [3, 7]


def test_each_row_is_judged_on_the_same_images(
    tmp_path: Path, manifest: Manifest, fake_variants: list[Variant[Any]]
) -> None:
    """The fake tower says the grey level; two of three images lie in the folder of theirs."""
    dataset = labelled(tmp_path, {"a": [0], "b": [1, 2]})
    right = answers_right(fake_variants, LabelledSource(source=str(dataset.source)), manifest, ("a", "b", "c")).right
    assert right.tolist() == [[True, True], [True, True], [False, False]]


def test_two_labels_of_one_name_count_as_one(
    tmp_path: Path, manifest: Manifest, fake_variants: list[Variant[Any]]
) -> None:
    """ImageNet has two classes `missile`; nobody can tell which of them a folder means."""
    dataset = labelled(tmp_path, {"a": [0], "b": [2]})
    labelled_source = LabelledSource(source=str(dataset.source))
    assert answers_right(fake_variants, labelled_source, manifest, ("a", "b", "b")).right.all()


def test_images_that_cannot_be_read_are_not_judged(
    tmp_path: Path, manifest: Manifest, fake_variants: list[Variant[Any]]
) -> None:
    """Refused or left out and named as told; a class of which none is left is an error in either case."""
    dataset = labelled(tmp_path, {"a": [0, 0, 0], "b": [1, 1]})
    (tmp_path / "a" / "1.png").write_bytes(b"no")
    source = LabelledSource(source=str(dataset.source), unreadable="skip")
    judged = answers_right(fake_variants, source, manifest, ("a", "b", "c"))
    assert judged.right.shape == (4, 2)
    assert judged.right.all()
    [reason] = judged.skipped
    assert "a/1.png is not an image" in reason
    with pytest.raises(DataError, match=r"a/1\.png .*; remove the file$"):
        answers_right(fake_variants, LabelledSource(source=source.source), manifest, ("a", "b", "c"))
    for name in ("0.png", "1.png"):
        (tmp_path / "b" / name).write_bytes(b"no")
    with pytest.raises(DataError, match="no image of 'b' that can be read"):
        answers_right(fake_variants, source, manifest, ("a", "b", "c"))


def test_folders_are_mapped_to_the_bundles_labels(
    tmp_path: Path, manifest: Manifest, fake_variants: list[Variant[Any]]
) -> None:
    """For labels that no folder can have; without the map the advice is what this command can do."""
    labels = ("a / b", "b", "c")
    dataset = labelled(tmp_path, {"ab": [0], "b": [1]})
    source = LabelledSource(source=str(dataset.source), folders=(("ab", "a / b"),))
    check_labels(source, labels)
    assert answers_right(fake_variants, source, manifest, labels).right.all()
    with pytest.raises(DataError, match="or map them to labels in a file and give it with --labels"):
        check_labels(LabelledSource(source=str(dataset.source)), labels)


def test_random_weights_have_no_accuracy(manifest: Manifest) -> None:
    """Refused before anything is run."""
    random = dataclasses.replace(manifest, model=dataclasses.replace(manifest.model, weights="random"))
    check_accuracy_possible(manifest)
    with pytest.raises(DataError, match="its accuracy means nothing"):
        check_accuracy_possible(random)


def test_difference_is_paired() -> None:
    """Nine of ten right in both, on the same images: no difference and no width."""
    right = np.arange(10) != 3
    accuracy = summarize_accuracy(right, right, seed=0)
    assert accuracy.top1 == pytest.approx(0.9)
    assert (accuracy.difference, accuracy.difference_interval.low, accuracy.difference_interval.high) == (0, 0, 0)
    assert accuracy.interval.low < 0.9 <= accuracy.interval.high


def test_difference_has_the_sign_of_the_row() -> None:
    """A row that is right once less than full depth in 100 images is a point worse."""
    full = np.ones(100, np.bool_)
    row = full.copy()
    row[0] = False
    assert summarize_accuracy(row, full, seed=0).difference == pytest.approx(-0.01)
