"""The script that lays ImageNet out: every image in its class, no picture twice, and nothing guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from lraee.errors import DataError
from lraee_calibration_data import imagenet_labels, imagenet_synsets, label_rows, open_dataset
from reproduce import arrange_imagenet

MakeImageNet: TypeAlias = Callable[..., Any]
"""See `conftest.FakeImageNet`."""


def listing(root: Path) -> dict[str, bytes]:
    """Every file below a folder; links to folders are followed."""
    dataset = open_dataset(root)
    return {sample.key: dataset.read_bytes(index) for index, sample in enumerate(dataset.samples)}


def arrange(sources: tuple[Path, Path, Path | None], out: Path, share: float = 0.5, calibration: int = 1) -> Any:
    """Run the script's function."""
    return arrange_imagenet.arrange(*sources, out, share=share, calibration=calibration)


def test_archives_and_folders_give_the_same_layout(make_imagenet: MakeImageNet, tmp_path: Path) -> None:
    """Half of ten training images of each class, one more for calibration, and every validation image in its class."""
    first, second = make_imagenet("a"), make_imagenet("b")
    layout = arrange(first.archives(), tmp_path / "one")
    arrange(second.folders(), tmp_path / "two")
    assert layout.counts == {"val": 12, "train": 15, "calibration": 3}
    assert listing(tmp_path / "one") == listing(tmp_path / "two")
    for name, synset in first.truth.items():
        assert (tmp_path / "one/val" / synset / f"{name}.JPEG").read_bytes() == first.val[f"{name}.JPEG"]
    for synset, files in first.train.items():
        taken = {path.name for path in (tmp_path / "one/train" / synset).iterdir()}
        kept = {path.name for path in (tmp_path / "one/calibration" / synset).iterdir()}
        assert (len(taken), len(kept)) == (5, 1)
        assert taken | kept <= set(files)
        assert not taken & kept
    assert not (tmp_path / "one.partial").exists()


def test_folders_match_the_labels_of_lraee_export(make_imagenet: MakeImageNet, tmp_path: Path) -> None:
    """WordNet ids are accepted with ImageNet's labels, and each means the class that it means in ImageNet."""
    fake = make_imagenet()
    arrange(fake.archives(), tmp_path / "out")
    dataset = open_dataset(tmp_path / "out/val")
    rows = label_rows(dataset, imagenet_labels())
    synsets = [fake.truth[Path(sample.key).stem] for sample in dataset.samples]
    names = {synset: imagenet_labels()[row] for synset, row in zip(synsets, rows, strict=True)}
    assert names == {"n01440764": "tench", "n02504458": "African bush elephant", "n07753592": "banana"}
    assert [imagenet_synsets()[row] for row in sorted(set(rows))] == list(fake.train)


def test_no_picture_serves_two_purposes(make_imagenet: MakeImageNet, tmp_path: Path) -> None:
    """Validation images that are also in train, and training images in two classes, are passed over; sizes stay."""
    fake = make_imagenet(train=12)
    first, second, _ = fake.train.values()
    names = list(first)
    for name, picture in zip(names[:3], fake.val.values(), strict=False):
        first[name] = picture
    other = list(second)
    second[other[0]] = first[names[4]]
    layout = arrange(fake.archives(), tmp_path / "out", share=0.75)
    pictures = list(listing(tmp_path / "out").values())
    assert len(pictures) == len(set(pictures))
    assert layout.counts["train"] == 8 + 9 + 9  # of the first class, only 9 pictures were left for both
    assert layout.passed_over in (3, 4)  # the one in two classes may not be reached


def test_sorted_validation_images_are_used_where_they_are(make_imagenet: MakeImageNet, tmp_path: Path) -> None:
    """Nothing is copied, and their pictures are kept out of train all the same."""
    fake = make_imagenet()
    train, _, truth = fake.folders()
    last = list(fake.train)[2]
    arrange((train, fake.root / "val", truth), tmp_path / "first")
    shared = next(iter(fake.val.values()))
    for path in (train / last).iterdir():
        path.write_bytes(shared)
    layout = arrange((train, tmp_path / "first/val", None), tmp_path / "second")
    assert (tmp_path / "second/val").is_symlink()
    assert listing(tmp_path / "second/val") == listing(tmp_path / "first/val")
    assert not (tmp_path / "second/train" / last).exists()
    assert layout.counts == {"val": 12, "train": 10, "calibration": 2}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no truth", "say with --truth which is of which class"),
        ("numbers", r"has numbers, whose meaning stands in the devkit's meta\.mat"),
        ("short truth", r"does not say of which class ILSVRC2012_val_00000012\.JPEG is"),
        ("stranger", "'n99999999', which is none of the 1,000 WordNet ids"),
        ("missing", "does not exist"),
        ("damaged", "an archive is damaged or no tar"),
        ("exists", "exists; remove it"),
    ],
)
def test_what_cannot_be_right_is_refused(make_imagenet: MakeImageNet, change: str, said: str, tmp_path: Path) -> None:
    """In words, and without anything under the name of the result."""
    fake = make_imagenet()
    train, val, truth = fake.folders()
    given: Path | None = truth
    match change:
        case "no truth":
            given = None
        case "numbers":
            truth.write_text("490\n361\n171\n")
        case "short truth":
            truth.write_text("\n".join(list(fake.truth.values())[:-1]))
        case "stranger":
            (train / "n99999999").mkdir()
        case "missing":
            val = tmp_path / "nowhere"
        case "damaged":
            train = tmp_path / "train.tar"
            train.write_bytes(b"not a tar")
        case "exists":
            (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=said):
        arrange((train, val, given), tmp_path / "out")
    assert (tmp_path / "out").exists() == (change == "exists")
