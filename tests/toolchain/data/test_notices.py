"""What an export says of its images before anything that takes long, and that it counts those that it read."""

from __future__ import annotations

import io
import json
import unicodedata
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lraee.bundle.folder import Bundle
from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import DataError, LabelsError
from lraee.labels.label_set import LabelSet
from lraee_calibration_data import Dataset, fashion_mnist_test
from lraee_exporters.labels import check_labels
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.reference_labels import NAMES
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.console import ConsoleProgress
from lraee_toolchain.data.labels import read_labels
from lraee_toolchain.data.notices import ImagesRead, read_images
from lraee_toolchain.data.splits import Splits, open_splits, save_pixels
from lraee_toolchain.export import export

LABELS = LabelSet(names=NAMES)

SMALL = Preprocessing(image_size=8, resize_mode="shortest", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)


def picture(number: int) -> bytes:
    """A PNG of its own for each number."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (9, 10, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def members(count: int, *labels: str, first: int = 0) -> dict[str, bytes]:
    """So many pictures of each label."""
    return {
        f"{label}/{number}.png": picture(first + count * row + number)
        for row, label in enumerate(labels)
        for number in range(count)
    }


def packed(path: Path, files: dict[str, bytes]) -> Path:
    """A zip of files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def configured(train: Path, **changes: Any) -> ExportConfig:
    """An export of the reference that names its data."""
    return ExportConfig(model="reference", out=Path("x.lraee"), train=train, **changes)


def read(config: ExportConfig, folder: Path, *, labels: LabelSet = LABELS, is_random: bool = False) -> ImagesRead:
    """Open the splits and read them, as an export does; what was told is what was told at once."""
    splits: Splits = open_splits(config, labels, seed=0)

    def pixels(dataset: Dataset, views: int) -> Path:
        target = folder / f"{dataset.fingerprint}-{dataset.unreadable}"
        if not target.exists():
            target.mkdir()
            save_pixels(dataset, SMALL, target, views=views, seed=0)
        return target

    told: list[str] = []
    with_labels = bool(splits.train.labels) and config.supervision != "label-free"
    found = read_images(config, splits, pixels, with_labels=with_labels, is_random=is_random, notice=told.append)
    assert found.notices == told
    return found


def test_images_that_were_not_read_are_not_counted_and_are_named(tmp_path: Path) -> None:
    """In training, calibration and evaluation; with the reason, and all of them in the result."""
    bad = {f"dress/bad{number}.png": picture(500 + number)[:60] for number in range(10)}
    train = packed(tmp_path / "train.zip", members(20, "dress", "coat") | bad)
    calibration = packed(tmp_path / "calibration.zip", {"1.png": picture(900), "2.heic": b"no"})
    test = members(3, "dress", "coat", first=1000) | {"coat/bad.png": b"bad"}
    evaluate = packed(tmp_path / "test.zip", test)
    chosen = configured(train, calibration=calibration, evaluate=evaluate, unreadable="skip")
    found = read(chosen, tmp_path)
    assert found.images["heads"] + found.images["gating"] == 40
    assert (found.images["calibration"], found.images["evaluation"]) == (1, 6)
    assert (found.rows["heads"], found.rows["gating"]) == (4 * found.images["heads"], found.images["gating"])
    named = {key for name in ("heads", "gating") for key in found.skipped[name]}
    assert named == set(bad)
    assert list(found.skipped["evaluation"]) == ["coat/bad.png"]
    text = "\n".join(found.notices)
    assert "1 image cannot be read and is left out" in text
    assert "2.heic is not an image in a format that Pillow can read; this Pillow" in text
    assert " more (heads images)" in text
    with pytest.raises(DataError, match=r"; remove the file$"):
        read(replace(chosen, unreadable="refuse"), tmp_path)


@pytest.mark.parametrize("role", ["train", "evaluate"])
def test_a_class_of_which_no_image_can_be_read_is_an_error(role: str, tmp_path: Path) -> None:
    """Also where unreadable images are skipped; without labels there is no class."""
    bad = packed(tmp_path / "bad.zip", members(20, "dress", "coat") | {"bag/1.png": b"1", "bag/2.png": b"2"})
    good = packed(tmp_path / "good.zip", members(20, "dress", "coat", first=100))
    chosen = configured(bad) if role == "train" else configured(good, evaluate=bad)
    with pytest.raises(DataError, match=r"bad\.zip has no image of 'bag' that can be read, such as: .*bag/1\.png"):
        read(replace(chosen, unreadable="skip"), tmp_path)
    if role == "train":
        found = read(configured(bad, unreadable="skip", supervision="label-free"), tmp_path)
        assert sum(found.images.values()) == 40


def test_what_is_passed_over_is_said_of_each_source_that_was_given(tmp_path: Path) -> None:
    """By ending, and the folders that hold no image; of shipped images nothing."""
    train = packed(tmp_path / "train.zip", members(20, "dress", "coat") | {"a.txt": b"", "b.mp4": b"", "x/c.txt": b""})
    found = read(configured(train, evaluate=fashion_mnist_test()), tmp_path)
    assert found.passed_over == {"--train": {".txt": 2, ".mp4": 1}, "--evaluate": {}}
    assert found.notices == ["--train train.zip: passed over 2 .txt, 1 .mp4; no image in x"]
    assert read(ExportConfig(model="ViT-B-32", out=Path("x.lraee")), tmp_path).notices == []


def test_a_class_with_one_image_is_warned_of(tmp_path: Path) -> None:
    """It lies in one split, so that heads never see it or no gate is judged by it."""
    train = packed(tmp_path / "train.zip", members(20, "dress", "coat") | {"bag/1.png": picture(999)})
    [text] = read(configured(train), tmp_path).notices
    assert text.startswith("--train train.zip has too few images: no image to ")
    assert "judge gates by for 'bag'" in text or "train heads with for 'bag'" in text
    assert read(configured(train, exits="none"), tmp_path).notices == []
    assert read(configured(train, supervision="label-free"), tmp_path).notices == []


def test_held_back_images_belong_to_the_training_images(tmp_path: Path) -> None:
    """What is passed over is said once; all splits count where images of a class are lacking or cannot be read."""
    files = members(20, "dress", "coat") | {"bag/1.png": picture(999), "dress/bad.png": b"bad", "a.txt": b""}
    found = read(configured(packed(tmp_path / "train.zip", files), evaluate_share=0.25, unreadable="skip"), tmp_path)
    assert found.passed_over == {"--train": {".txt": 1}}
    assert found.notices[0] == "--train train.zip: passed over 1 .txt"
    assert sum(found.images.values()) == 41
    assert [key for skipped in found.skipped.values() for key in skipped] == ["dress/bad.png"]
    purposes = ("judge gates by", "train heads with", "evaluate on")
    lacking = [purpose for purpose in purposes if f"no image to {purpose} for 'bag'" in found.notices[-1]]
    assert len(lacking) in (2, 3)  # the one image may be for calibration


def test_training_images_without_class_folders_are_said_to_have_no_labels(tmp_path: Path) -> None:
    """At once, and not only in the report."""
    train = packed(tmp_path / "train.zip", {f"{number}.png": picture(number) for number in range(20)})
    wanted = ["--train train.zip has no class folders: heads and gates learn without labels"]
    assert read(configured(train), tmp_path).notices == wanted
    assert read(configured(train, exits="none"), tmp_path).notices == []


@pytest.mark.parametrize(
    ("extra", "named"),
    [("loose.png", "loose.png lies beside folders"), ("coat/old/1.png", "coat/old/1.png lies in a folder inside")],
)
def test_labels_are_never_dropped_for_one_loose_picture(extra: str, named: str, tmp_path: Path) -> None:
    """Refused with its name and the way out, which works; calibration images need no labels."""
    source = packed(tmp_path / "x.zip", members(20, "dress", "coat") | {extra: picture(999)})
    good = packed(tmp_path / "good.zip", members(20, "dress", "coat", first=2000))
    for supervision in ("auto", "labels"):
        with pytest.raises(DataError, match=rf"{named}.*--supervision label-free"):
            open_splits(configured(source, supervision=supervision), LABELS, seed=0)
    assert len(open_splits(configured(source, supervision="label-free"), LABELS, seed=0).train) == 41
    assert len(open_splits(configured(good, calibration=source), LABELS, seed=0).calibration) == 41
    with pytest.raises(DataError, match=rf"x\.zip has no labels; {named}"):
        open_splits(configured(good, evaluate=source), LABELS, seed=0)


def test_a_photo_library_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """Folders of years and months look like classes and are none."""
    library = packed(tmp_path / "photos.zip", members(20, "2024/01", "2024/02", "2025/01"))
    message = r"images of '01' and of 1 more folders.*if its folders are no classes, pass --supervision label-free"
    with pytest.raises(DataError, match=message):
        open_splits(configured(library), LABELS, seed=0)
    assert len(open_splits(configured(library, supervision="label-free"), LABELS, seed=0).train) == 60
    with pytest.raises(DataError) as found:
        open_splits(configured(packed(tmp_path / "t.zip", members(20, "dress", "coat", first=500)), evaluate=library),
                    LABELS, seed=0)  # fmt: skip
    assert "--supervision" not in str(found.value)


def test_a_mapped_label_file_and_another_unicode_form_reach_every_split(tmp_path: Path) -> None:
    """A label with a slash, and one that macOS wrote."""
    labels = LabelSet(names=("swim trunks / shorts", "café"), folders=(("shorts", "swim trunks / shorts"),))
    folders = ("shorts", unicodedata.normalize("NFD", "café"))
    train = packed(tmp_path / "train.zip", members(20, *folders))
    evaluate = packed(tmp_path / "test.zip", members(2, *folders, first=500))
    splits = open_splits(configured(train, evaluate=evaluate), labels, seed=0)
    assert splits.train.labels == ("café", "shorts")
    with pytest.raises(DataError, match="no folder can be called 'swim trunks / shorts'"):
        open_splits(configured(train), LabelSet(names=labels.names), seed=0)


def test_an_export_reports_the_images_that_it_read(
    exported: Any, few_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the console, in the report, in metrics.json and in the manifest."""
    with zipfile.ZipFile(few_images) as every:
        files = {name: every.read(name) for name in every.namelist()[::12]}
    broken = sorted(files)[3]
    train = packed(tmp_path / "train.zip", files | {broken: files[broken][:50], "notes.txt": b""})
    config = replace(
        exported.config, out=tmp_path / "x.lraee", train=train, calibration=train, exits="none", text="none",
        unreadable="skip", supervision="label-free", work=exported.config.work,
    )  # fmt: skip
    with pytest.raises(DataError, match="share a picture"):
        export(config)
    with ConsoleProgress() as progress:
        result = export(replace(config, calibration=None), progress)
    told = capsys.readouterr().err
    metrics = json.loads((result.report / "metrics.json").read_text("utf-8"))
    assert metrics["passed_over"] == {"--train": {".txt": 1}}
    [(split, skipped)] = metrics["skipped"].items()
    assert list(skipped) == [broken]
    assert sum(metrics["images"].values()) <= len(files) - 1
    manifest = Bundle(result.bundle).manifest
    assert manifest.quantization is not None
    assert manifest.quantization.images == 4 * metrics["images"]["calibration"]
    report = (result.report / "report.md").read_text("utf-8")
    assert "1 more could not be read; `metrics.json` names them." in report
    for text in (told, report):
        assert "passed over 1 .txt" in text
        assert "1 image cannot be read and is left out" in text
        assert broken in text
    assert "note: --train train.zip: passed over 1 .txt" in told
    assert f"({split} images)" in told


def test_labels_that_are_one_to_the_models_tokenizer_are_refused_at_export() -> None:
    """ImageNet's own two pairs of equal names pass; a tokenizer that reads less refuses more."""
    model = load_model("reference")
    check_labels(model, LabelSet(names=read_labels("imagenet").names))
    with pytest.raises(LabelsError, match="'Trousers' and 'trousers' are one to the text tower"):
        check_labels(model, LabelSet(names=("dress", "Trousers", "trousers")))
    long = "coat dress " * 77
    with pytest.raises(LabelsError, match="it reads the same tokens of both, as far as it reads"):
        check_labels(model, LabelSet(names=(f"{long} bag", f"{long} shirt")))
    without_points = replace(model, tokenizer=lambda texts: model.tokenizer([t.replace(".", "") for t in texts]))
    check_labels(model, LabelSet(names=("dress", "dress.")))
    with pytest.raises(LabelsError, match=r"'dress' and 'dress\.'"):
        check_labels(without_points, LabelSet(names=("dress", "dress.")))


def test_a_label_set_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the sets that there are."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        LabelsError, match=r"--labels is 'imagnet', and there is no such file; wanted reference, imagenet"
    ):
        read_labels("imagnet")
