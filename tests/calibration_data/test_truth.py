"""Folders and labels meet by name: in one Unicode form, through a map where a label can be no folder, or refused."""

import unicodedata
import zipfile
from pathlib import Path

import pytest

from lraee.errors import DataError
from lraee_calibration_data.dataset import Dataset, open_dataset
from lraee_calibration_data.truth import check_classes_are_read, label_rows


def dataset_of(path: Path, *keys: str) -> Dataset:
    """Make a zip of files that are never decoded."""
    with zipfile.ZipFile(path / "x.zip", "w") as archive:
        for key in keys:
            archive.writestr(key, key)
    return open_dataset(path / "x.zip")


@pytest.mark.parametrize("folder", ["NFC", "NFD"])
@pytest.mark.parametrize("label", ["NFC", "NFD"])
def test_labels_match_folders_in_either_unicode_form(folder: str, label: str, tmp_path: Path) -> None:
    """A label file or a folder from macOS has letters and accents apart."""
    name = unicodedata.normalize(folder, "café")  # type: ignore[arg-type]  # a form's name
    dataset = dataset_of(tmp_path, f"{name}/1.png", "dog/1.png")
    labels = ("dog", unicodedata.normalize(label, "café"))  # type: ignore[arg-type]  # a form's name
    assert sorted(label_rows(dataset, labels).tolist()) == [0, 1]


def test_a_label_that_no_folder_can_have_is_reached_through_a_map(tmp_path: Path) -> None:
    """Several folders may have one label, and the others go by their own names."""
    dataset = dataset_of(tmp_path, "cat/1.png", "shorts/1.png", "trunks/1.png")
    labels = ("swim trunks / shorts", "cat")
    folders = (("shorts", labels[0]), ("trunks", labels[0]))
    assert label_rows(dataset, labels, folders).tolist() == [1, 0, 0]
    with pytest.raises(DataError, match=r"folder 'x' the label 'bird', which is none of the 2 labels"):
        label_rows(dataset, labels, (("x", "bird"),))


def test_a_folder_that_is_no_label_is_told_how_to_become_one(tmp_path: Path) -> None:
    """The number of such folders, the nearest label, and the label that no folder can have."""
    dataset = dataset_of(tmp_path, "Cat/1.png", "dog /1.png", "dog/1.png")
    with pytest.raises(
        DataError, match=r"images of 'Cat' and of 1 more folders, which are none of the 2 labels"
    ) as found:
        label_rows(dataset, ("cat", "dog"), advice="do this")
    assert "; do this; the nearest label to 'Cat' is 'cat'" in str(found.value)
    assert "no folder can be called" not in str(found.value)
    with pytest.raises(
        DataError, match=r"no folder can be called 'a / b': a label file has a line of folder, tab, label"
    ):
        label_rows(dataset, ("cat", "dog", "a / b"))
    with pytest.raises(DataError) as found:
        label_rows(dataset, ("cat", "dog", "a / b"), (("ab", "a / b"),))
    assert "no folder can be called" not in str(found.value)


def test_a_folder_of_a_label_without_an_image_is_refused(tmp_path: Path) -> None:
    """Its class would be missing; other folders without images are only counted."""
    dataset = dataset_of(tmp_path, "cat/1.png", "dog/1.png", "bird/1.psd", "notes/1.txt")
    assert label_rows(dataset, ("cat", "dog")).tolist() == [0, 1]
    with pytest.raises(DataError, match=r"x\.zip has no image of 'bird': its folder holds none"):
        label_rows(dataset, ("cat", "dog", "bird"))


def test_a_class_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    """With the reason of one of them; a class of which one is left passes."""
    dataset = dataset_of(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png")
    check_classes_are_read(dataset, {"cat/1.png": "cat/1.png is damaged"})
    with pytest.raises(DataError, match=r"no image of 'dog' that can be read, such as: dog/1\.png is damaged"):
        check_classes_are_read(dataset, {"cat/1.png": "no", "dog/1.png": "dog/1.png is damaged"})
