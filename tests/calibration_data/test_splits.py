"""Splits are by picture, even over the classes, and the same everywhere."""

import io
import zipfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lraee.errors import DataError
from lraee_calibration_data import shipped
from lraee_calibration_data.dataset import Dataset, open_dataset
from lraee_calibration_data.splits import check_disjoint, split


def dataset_of(path: Path, pictures: dict[str, int]) -> Dataset:
    """A zip whose members are pictures known by a number; equal numbers are equal pictures."""
    with zipfile.ZipFile(path, "w") as archive:
        for key, number in pictures.items():
            archive.writestr(key, f"picture {number}")  # splitting does not decode
    return open_dataset(path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    counts=st.lists(st.integers(4, 30), min_size=2, max_size=5),
    shares=st.lists(st.floats(0.15, 0.33), min_size=1, max_size=3),
    seed=st.integers(0, 5),
)
def test_a_split_has_the_asked_sizes_overall_and_per_class(tmp_path, counts, shares, seed):
    """Exact to one picture overall, and close to it in each class; nothing is in two splits."""
    pictures = {f"{label}/{item}.png": 1000 * label + item for label, n in enumerate(counts) for item in range(n)}
    dataset = dataset_of(tmp_path / "x.zip", pictures)
    splits = split(dataset, {str(index): share for index, share in enumerate(shares)}, seed)
    chosen = [index for indices in splits.values() for index in indices]
    assert len(chosen) == len(set(chosen))
    for share, indices in zip(shares, splits.values(), strict=True):
        assert abs(len(indices) - share * len(dataset)) <= 1
        classes = Counter(dataset.samples[index].label for index in indices)
        for label, n in enumerate(counts):
            assert abs(classes[str(label)] - share * n) <= 1 + len(counts) * max(counts) / min(counts) / 2


def test_the_same_picture_under_several_names_stays_in_one_split(tmp_path):
    """Each picture is there three times."""
    dataset = dataset_of(tmp_path / "x.zip", {f"{copy}-{n}.png": n for copy in range(3) for n in range(20)})
    splits = split(dataset, {"train": 0.5, "test": 0.5}, seed=0)
    assert [len(indices) for indices in splits.values()] == [30, 30]
    check_disjoint({name: dataset.subset(indices) for name, indices in splits.items()})


def test_a_split_depends_on_pictures_and_seed_not_on_names(tmp_path):
    """Renaming files does not move a picture from train to test."""

    def train_pictures(names: dict[str, int], seed: int) -> set[int]:
        dataset = dataset_of(tmp_path / "x.zip", names)
        return {names[dataset.samples[i].key] for i in split(dataset, {"train": 0.5}, seed)["train"]}

    names = {f"{n:02}.png": n for n in range(40)}
    renamed = {f"{(7 * n) % 40:02}.jpg": n for n in range(40)}
    assert train_pictures(names, 3) == train_pictures(renamed, 3)
    assert train_pictures(names, 3) != train_pictures(names, 4)


def test_the_split_of_the_shipped_photos_never_changes():
    """Results recorded with it stay comparable; and the four photos that are there twice stay together."""
    photos = open_dataset(shipped.photos())
    splits = split(photos, {"train": 0.8, "test": 0.2}, seed=0)
    keys = {name: {photos.samples[index].key for index in indices} for name, indices in splits.items()}
    assert {name: len(indices) for name, indices in splits.items()} == {"train": 83, "test": 21}
    assert sorted(keys["test"])[:3] == [
        "cq100-birthday-balloons.jpg",
        "cq100-daisy-bouquet.jpg",
        "cq100-easter-eggs.jpg",
    ]
    for one, two in (("macaws", 23), ("girl", 15), ("motocross", 5), ("ball-caps", 3)):
        assert any({f"cq100-{one}.jpg", f"kodak-{two}.jpg"} <= part for part in keys.values())


@pytest.mark.parametrize("fractions", [{}, {"a": 0.0}, {"a": 0.7, "b": 0.4}, {"a": -1.0}])
def test_impossible_fractions_are_refused(tmp_path, fractions):
    """They are above 0 and their sum is at most 1."""
    with pytest.raises(DataError, match="sum of at most 1"):
        split(dataset_of(tmp_path / "x.zip", {"a.png": 0}), fractions, seed=0)


def test_a_split_that_would_be_empty_is_refused(tmp_path):
    """With the number of pictures and what to change."""
    dataset = dataset_of(tmp_path / "x.zip", {f"{n}.png": n for n in range(4)})
    with pytest.raises(DataError, match=r"split 'test' would be empty: 0.1 of the 4 different pictures"):
        split(dataset, {"train": 0.9, "test": 0.1}, seed=0)


def test_data_sets_that_share_a_picture_are_refused_by_both_names(tmp_path):
    """The name of the file does not matter; copies within one data set are allowed."""
    train = dataset_of(tmp_path / "train.zip", {"a.png": 1, "b.png": 2, "c.png": 2})
    test = dataset_of(tmp_path / "test.zip", {"z.png": 2})
    check_disjoint({"train": train})
    with pytest.raises(DataError, match=r"'train' and 'test' share a picture: .*train.zip:b.png .* .*test.zip:z.png"):
        check_disjoint({"train": train, "test": test})


def test_a_comment_does_not_hide_that_a_picture_is_shared(tmp_path):
    """The same JPEG, saved once more with a comment."""
    image = Image.new("RGB", (8, 8), "red")
    for name, comment in (("train", b""), ("test", b"created by a program")):
        (tmp_path / name).mkdir()
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", comment=comment)
        (tmp_path / name / f"{name}.jpg").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match="share a picture"):
        check_disjoint({name: open_dataset(tmp_path / name) for name in ("train", "test")})
