"""No picture serves two purposes, labels are the model's own, and preprocessing keeps rows and pictures together."""

import io
import json
import os
import zipfile
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import DataError
from lraee.images.preprocess import pixels as preprocess
from lraee.labels.label_set import LabelSet
from lraee_calibration_data import fashion_mnist_test, label_rows, open_dataset
from lraee_exporters.reference_labels import NAMES
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.data.held_back import ARCHIVE, RECORD, save_held_back
from lraee_toolchain.data.splits import CROPS, FEW_IMAGES, Splits, load_pixel_set, open_splits, save_pixels

LABELS = LabelSet(names=NAMES)

SMALL = Preprocessing(
    image_size=16, resize_mode="shortest", interpolation="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)


def picture(number: int) -> bytes:
    """A PNG of its own for each number, larger than the model's input."""
    pixels = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    """A zip with these files."""
    with zipfile.ZipFile(path, "w") as target:
        for name, content in members.items():
            target.writestr(name, content)
    return path


def numbered(path: Path, numbers: range, *, labels: tuple[str, ...] = ()) -> Path:
    """A zip of pictures by number, in folders by turns when there are labels."""
    folders = [f"{labels[i % len(labels)]}/" if labels else "" for i in range(len(numbers))]
    return archive(path, {f"{folder}{n}.png": picture(n) for folder, n in zip(folders, numbers, strict=True)})


def config(train: Path, **changes: object) -> ExportConfig:
    """A configuration of the reference that names its data."""
    return ExportConfig(model="reference", out=Path("x.lraee"), train=train, **changes)  # type: ignore[arg-type]  # named by each test


def digests(splits: Splits) -> dict[str, set[str]]:
    """The pictures of each purpose."""
    named = {"calibration": splits.calibration, "heads": splits.heads, "gating": splits.gating}
    if splits.evaluation is not None:
        named["evaluation"] = splits.evaluation
    return {name: {dataset.digest(i) for i in range(len(dataset))} for name, dataset in named.items()}


def test_the_four_purposes_share_no_picture_and_waste_none(few_images: Path) -> None:
    """Calibration, heads and gating divide the training images; evaluation has its own."""
    splits = open_splits(config(few_images, evaluate=fashion_mnist_test()), LABELS, seed=0)
    sets = digests(splits)
    assert all(not one & other for one, other in combinations(sets.values(), 2))
    assert sum(len(sets[name]) for name in ("calibration", "heads", "gating")) == 240
    assert (len(splits.calibration), len(splits.heads), len(splits.gating)) == (96, 96, 48)


def test_every_purpose_sees_every_class(few_images: Path) -> None:
    """Splits are even over the labels."""
    splits = open_splits(config(few_images), LABELS, seed=0)
    for dataset in (splits.calibration, splits.heads, splits.gating):
        counts = np.bincount(dataset.targets, minlength=10)
        assert counts.min() >= 0.8 * counts.mean()


def test_another_seed_gives_another_division_and_the_same_seed_the_same(few_images: Path) -> None:
    """By picture, so a re-run trains on what it trained on before."""
    chosen = config(few_images)
    one, again, other = (digests(open_splits(chosen, LABELS, seed=seed)) for seed in (0, 0, 1))
    assert one == again
    assert one["gating"] != other["gating"]


def test_few_pictures_are_seen_in_several_views(few_images: Path) -> None:
    """Below the limit; the shipped pool is above it."""
    assert open_splits(config(few_images), LABELS, seed=0).views == CROPS
    default = open_splits(ExportConfig(model="reference", out=Path("x.lraee")), LABELS, seed=0)
    assert default.views == 1
    assert len(default.heads) > FEW_IMAGES


def test_without_data_another_model_takes_the_photos() -> None:
    """Which have no labels, so nothing is asked of them."""
    splits = open_splits(ExportConfig(model="ViT-B-32", out=Path("x.lraee")), LABELS, seed=0)
    assert not splits.heads.labels
    assert len(splits.heads) + len(splits.gating) + len(splits.calibration) == 104


def test_evaluating_on_the_training_images_is_refused_by_name(few_images: Path) -> None:
    """The message names the purposes and a file."""
    with pytest.raises(DataError, match=r"'(calibration|heads|gating)' and 'evaluation' share a picture: .*\.png"):
        open_splits(config(few_images, evaluate=few_images), LABELS, seed=0)


def test_calibrating_on_the_training_images_is_refused(few_images: Path) -> None:
    """Also when it is one picture under another name."""
    with pytest.raises(DataError, match=r"'calibration' and '(heads|gating)' share a picture"):
        open_splits(config(few_images, calibration=few_images), LABELS, seed=0)


def test_one_renamed_copy_in_the_evaluation_is_refused(few_images: Path, tmp_path: Path) -> None:
    """Pictures are told by their content."""
    with zipfile.ZipFile(few_images) as train:
        stolen = train.read(train.namelist()[123])
    members = {f"{NAMES[n % 2]}/{n}.png": picture(n) for n in range(20)}
    test = archive(tmp_path / "test.zip", members | {f"{NAMES[1]}/innocent.png": stolen})
    with pytest.raises(DataError, match=r"share a picture: .* is the same as .*innocent\.png"):
        open_splits(config(few_images, evaluate=test), LABELS, seed=0)


def test_given_calibration_images_leave_the_rest_for_training(few_images: Path, tmp_path: Path) -> None:
    """The share they would have had goes to heads and gating."""
    calibration = numbered(tmp_path / "calibration.zip", range(12))
    splits = open_splits(config(few_images, calibration=calibration), LABELS, seed=0)
    assert len(splits.calibration) == 12
    assert len(splits.heads) + len(splits.gating) == 240


@pytest.mark.parametrize("role", ["train", "evaluate"])
def test_a_label_that_the_model_does_not_know_is_refused(role: str, few_images: Path, tmp_path: Path) -> None:
    """In training as in evaluation; the message names the source and the label."""
    odd = numbered(tmp_path / "odd.zip", range(60), labels=("dress", "teapot"))
    chosen = config(odd) if role == "train" else config(few_images, evaluate=odd)
    with pytest.raises(DataError, match=r"odd\.zip has images of 'teapot', which is none of the 10 labels"):
        open_splits(chosen, LABELS, seed=0)


def test_unknown_labels_do_not_matter_without_labels(tmp_path: Path) -> None:
    """Label-free training reads the folder names of its images as nothing."""
    odd = numbered(tmp_path / "odd.zip", range(60), labels=("dress", "teapot"))
    assert len(open_splits(config(odd, supervision="label-free"), LABELS, seed=0).heads) == 24


def test_labels_are_asked_for_where_there_are_none(few_images: Path, tmp_path: Path) -> None:
    """`--supervision labels` and an evaluation both need them."""
    plain = numbered(tmp_path / "plain.zip", range(60))
    with pytest.raises(DataError, match="has no labels"):
        open_splits(config(plain, supervision="labels"), LABELS, seed=0)
    with pytest.raises(DataError, match="has no labels"):
        open_splits(config(few_images, evaluate=plain), LABELS, seed=0)


def test_label_rows_are_positions_among_the_models_labels(tmp_path: Path) -> None:
    """Not among the data set's own, which may be fewer and in another order."""
    dataset = open_dataset(numbered(tmp_path / "x.zip", range(4), labels=("coat", "bag")))
    named = [sample.label for sample in dataset.samples]
    labels = ("bag", "hat", "coat")
    assert [labels[index] for index in label_rows(dataset, labels)] == named


def test_of_equal_labels_the_first_is_meant(tmp_path: Path) -> None:
    """ImageNet has two classes called missile; the first of equal probabilities is the answer, so it must be right."""
    dataset = open_dataset(numbered(tmp_path / "x.zip", range(4), labels=("coat", "missile")))
    assert set(label_rows(dataset, ("missile", "coat", "missile")).tolist()) == {0, 1}


def test_pixels_are_those_of_the_runtime_in_the_order_of_the_images(tmp_path: Path) -> None:
    """One row for each image without further views."""
    dataset = open_dataset(numbered(tmp_path / "x.zip", range(70)))
    save_pixels(dataset, SMALL, tmp_path, views=1, seed=0)
    rows = load_pixel_set(tmp_path)
    np.testing.assert_array_equal(rows.source, np.arange(70))
    for index in (0, 33, 69):
        np.testing.assert_array_equal(rows.pixels[index], preprocess(dataset.read(index), SMALL))


def test_each_view_knows_its_picture(tmp_path: Path) -> None:
    """Every picture has itself and its crops, all different, over more than one chunk of images."""
    dataset = open_dataset(numbered(tmp_path / "x.zip", range(70)))
    save_pixels(dataset, SMALL, tmp_path, views=3, seed=0)
    rows = load_pixel_set(tmp_path)
    assert rows.pixels.shape == (210, 16, 16, 3)
    assert np.bincount(rows.source).tolist() == [3] * 70
    for index in (0, 69):
        views = rows.pixels[rows.source == index]
        assert len({view.tobytes() for view in views}) == 3
        np.testing.assert_array_equal(views[0], preprocess(dataset.read(index), SMALL))


def test_unreadable_images_are_refused_or_left_out_as_told(tmp_path: Path) -> None:
    """Left out, the rows keep their pictures, and the file is as long as what was read."""
    members = {f"{n:02}.png": picture(n) for n in range(70)}
    source = archive(tmp_path / "x.zip", members | {"05.png": b"no picture", "68.png": picture(68)[:40]})
    with pytest.raises(DataError, match=r"05\.png"):
        save_pixels(open_dataset(source), SMALL, tmp_path, views=1, seed=0)
    dataset = open_dataset(source, unreadable="skip")
    save_pixels(dataset, SMALL, tmp_path, views=2, seed=0)
    rows = load_pixel_set(tmp_path)
    assert len(rows.pixels) == len(rows.source) == 136
    assert set(range(70)) - set(rows.source.tolist()) == {5, 68}
    for index in (4, 6, 69):
        first = rows.pixels[np.flatnonzero(rows.source == index)[0]]
        np.testing.assert_array_equal(first, preprocess(dataset.read(index), SMALL))
    assert {path.name for path in tmp_path.glob("*.npy")} == {"pixels.npy", "source.npy"}
    assert rows.images == 68
    assert sorted(rows.skipped) == ["05.png", "68.png"]
    assert "05.png is not an image" in rows.skipped["05.png"]


def test_a_source_without_a_readable_image_is_refused(tmp_path: Path) -> None:
    """Skipping everything leaves nothing to calibrate with."""
    source = archive(tmp_path / "x.zip", {f"{n}.png": b"no" for n in range(3)})
    with pytest.raises(DataError, match=r"no image of .* can be read"):
        save_pixels(open_dataset(source, unreadable="skip"), SMALL, tmp_path, views=1, seed=0)


def test_a_share_of_the_training_images_is_held_back_by_picture(few_images: Path, tmp_path: Path) -> None:
    """Evenly over the labels; a copy under another name goes with its picture, and the others are divided as ever."""
    with zipfile.ZipFile(few_images) as pool:
        members = {name: pool.read(name) for name in pool.namelist()}
    copies = {f"{name.rpartition('.')[0]}-copy.png": content for name, content in list(members.items())[:60]}
    train = archive(tmp_path / "train.zip", members | copies)
    splits = open_splits(config(train, evaluate_share=0.25), LABELS, seed=0)
    assert splits.evaluation is not None
    sets = digests(splits)
    assert all(not one & other for one, other in combinations(sets.values(), 2))
    assert {name: len(found) for name, found in sets.items()} == {
        "calibration": 72, "heads": 72, "gating": 36, "evaluation": 60
    }  # fmt: skip
    assert sum(len(dataset) for dataset in splits.named().values()) == len(splits.train) == 300
    assert np.bincount(splits.evaluation.targets, minlength=10).min() >= 5


def test_the_same_images_are_held_back_whatever_the_seed_is(few_images: Path) -> None:
    """Else a tuned trunk that is exported again with another seed would be judged on images that it learned from."""
    one, other = (digests(open_splits(config(few_images, evaluate_share=0.2), LABELS, seed=seed)) for seed in (0, 1))
    assert one["evaluation"] == other["evaluation"]
    assert one["gating"] != other["gating"]


def test_images_that_are_held_back_need_labels(tmp_path: Path) -> None:
    """Also where heads learn without them; folders must be labels."""
    plain = numbered(tmp_path / "plain.zip", range(60))
    with pytest.raises(DataError, match=r"plain\.zip has no labels; put the images into one folder per class"):
        open_splits(config(plain, evaluate_share=0.2), LABELS, seed=0)
    odd = numbered(tmp_path / "odd.zip", range(60), labels=("dress", "teapot"))
    with pytest.raises(DataError, match="'teapot', which is none of the 10 labels"):
        open_splits(config(odd, evaluate_share=0.2, supervision="label-free"), LABELS, seed=0)


def test_held_back_images_are_a_labelled_zip_of_the_same_pictures(tmp_path: Path) -> None:
    """Also of names that no zip can hold, without what cannot be decoded; the same images give the same bytes."""
    for number in range(8):
        folder = tmp_path / "photos" / ("dress" if number % 2 else "coat")
        folder.mkdir(parents=True, exist_ok=True)
        name = b"odd \xff.PNG" if number == 3 else f"{number}.png".encode()
        (folder / os.fsdecode(name)).write_bytes(picture(number))
    source = open_dataset(tmp_path / "photos")
    archives = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_held_back(source, tmp_path / name, skipped=["dress/5.png"])
        archives.append(tmp_path / name / ARCHIVE)
    again = open_dataset(archives[0])
    assert archives[0].read_bytes() == archives[1].read_bytes()
    assert sorted(sample.label or "" for sample in again.samples) == ["coat"] * 4 + ["dress"] * 3
    kept = {source.digest(i): sample for i, sample in enumerate(source.samples) if sample.key != "dress/5.png"}
    record = json.loads((tmp_path / "one" / RECORD).read_text("utf-8"))
    assert record["source"] == "photos"
    for index, sample in enumerate(again.samples):
        origin = kept.pop(again.digest(index))
        assert (record["images"][sample.key], sample.label) == (origin.key, origin.label)
    assert kept == {}
