"""The evidence on unseen classes: folds that see nothing of their classes, resume, and are assembled."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lraee.bundle.folder import Bundle
from lraee.labels.label_file import read_label_file
from lraee.labels.label_set import LabelSet
from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_benchmarks.analysis.right_answers import pack_right, unpack_right
from lraee_calibration_data import label_rows, load_pixels, open_dataset
from lraee_exporters.labels import embed_labels
from lraee_exporters.loading.open_clip_models import load_model

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "benchmarks" / "evidence"
REFERENCE = ROOT / "exporters" / "lraee_exporters" / "reference"
FEW_PASSES = "--adapt-epochs 1 --adapt-learning-rate 3e-2 --device cpu"
"""Few steps take a small share of this rate."""


@dataclass(frozen=True)
class Trial:
    """Inputs and places of a run with few images."""

    folder: Path

    def command(self, *more: str, pool: str = "pool.zip", records: str = "records") -> list[str]:
        """Give the command that runs folds."""
        paths = (("model", REFERENCE), ("pool", pool), ("test", "test.zip"), ("labels", "l.txt"))
        inputs = [word for name, path in paths for word in (f"--{name}", str(self.folder / path))]
        places = ["--out", str(self.folder / "out"), "--records", str(self.folder / records)]
        places += ["--target", str(self.folder / records), "--folds", "2", "--more", FEW_PASSES]
        return [sys.executable, str(FOLDER / "unseen_classes.py"), "run", *inputs, *places, *more]

    def run(self, *more: str, pool: str = "pool.zip", records: str = "records") -> subprocess.CompletedProcess[str]:
        """Run it to its end."""
        command = self.command(*more, pool=pool, records=records)
        return subprocess.run(command, capture_output=True, text=True, check=False)

    @property
    def labels(self) -> LabelSet:
        """All ten."""
        return read_label_file(self.folder / "l.txt")


@pytest.fixture(scope="module")
def trial(few_photos: Path) -> Trial:
    """240 images to learn from and 200 to judge by."""
    return Trial(few_photos)


@pytest.fixture(scope="module")
def killed(trial: Trial) -> Path:
    """Folder of fold 1, killed by -9 with its export once the tuning has written a checkpoint."""
    process = subprocess.Popen(
        trial.command("--fold", "1"), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    while not list((trial.folder / "out").glob("fold-1-*/work/.begun-adapted-*/*.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (trial.folder / "records").exists()
    (folder,) = (trial.folder / "out").glob("fold-*")
    return folder


@pytest.fixture(scope="module")
def resumed(trial: Trial, killed: Path) -> dict[str, Any]:
    """The record of the killed fold, from the next run of the same command."""
    done = trial.run("--fold", "1")
    assert done.returncode == 0, done.stderr
    assert "found in the work folder" in done.stdout + done.stderr
    assert "missing: fold 2" in done.stdout.splitlines()
    assert "Fold 2 of 2 is missing." in (trial.folder / "records" / "unseen-classes.md").read_text("utf-8")
    found: dict[str, Any] = json.loads((trial.folder / "records" / "fold-1.json").read_text("utf-8"))
    return found


def right_by_torch(model: Path, trial: Trial, rows: list[int], images: list[int]) -> NDArray[np.float64]:
    """Which of some test images a model answers right among some labels, computed by open_clip and torch alone."""
    loaded, labels, dataset = load_model(str(model)), trial.labels, open_dataset(trial.folder / "test.zip")
    classes = label_rows(dataset, labels.names)[images]
    preprocessing = loaded.tower.preprocessing
    pixels = torch.from_numpy(load_pixels(dataset, preprocessing, images).pixels).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(some).view(1, 3, 1, 1) for some in (preprocessing.mean, preprocessing.std))
    with torch.inference_mode():
        embeddings = loaded.torch_model.encode_image((pixels - mean) / std, normalize=True).numpy()
    answers = np.array(rows)[(embeddings @ embed_labels(loaded, labels)[rows].T).argmax(axis=1)]
    return (answers == classes).astype(np.float64)


def test_labels_are_divided_by_their_names_alone(scripts: SimpleNamespace) -> None:
    """Folds of equal size that share no label, whatever the order; other numbers are refused."""
    names = [f"class {number}" for number in range(200)]
    folds = scripts.unseen_folds.divide(names)
    assert [len(fold) for fold in folds] == [50] * 4
    assert sorted(name for fold in folds for name in fold) == sorted(names)
    assert scripts.unseen_folds.divide(names[::-1]) == folds
    assert scripts.unseen_folds.divide(names, seed=1) != folds
    assert folds != [sorted(names)[at : at + 50] for at in range(0, 200, 50)]
    for wrong in (0, 1, 3, 200, -2):
        with pytest.raises(scripts.part_records.PhotosError, match="cannot be divided"):
            scripts.unseen_folds.divide(names, wrong)


def test_a_fold_is_given_nothing_of_its_own_classes(trial: Trial, killed: Path, resumed: dict[str, Any]) -> None:
    """Its tuning reads a zip without their photos, and a file without their names."""
    folder = killed
    unseen, names = set(resumed["unseen_labels"]), trial.labels.names
    given = open_dataset(folder / "seen.zip")
    pool = open_dataset(trial.folder / "pool.zip")
    digests = {pool.digest(row) for row, sample in enumerate(pool.samples) if sample.label in unseen}
    assert len(unseen) == 5
    assert digests.isdisjoint(given.digest(row) for row in range(len(given)))
    assert [sample for sample in pool.samples if sample.label not in unseen] == list(given.samples)
    assert resumed["learned_from"] == len(given) == 120
    kept = read_label_file(folder / "seen.json")
    assert kept.names == tuple(name for name in names if name not in unseen)
    assert kept.templates == trial.labels.templates
    assert Bundle(folder / "tuned.lraee").labels.names == kept.names


def test_other_photos_of_unseen_classes_change_nothing(trial: Trial, killed: Path, resumed: dict[str, Any]) -> None:
    """A run that was not killed, on a pool whose unseen photos changed places, comes to the same weights and record."""
    with zipfile.ZipFile(trial.folder / "pool.zip") as pool, zipfile.ZipFile(trial.folder / "other.zip", "w") as other:
        unseen = [name for name in pool.namelist() if name.split("/")[-2] in resumed["unseen_labels"]]
        for name in pool.namelist():  # each takes the photo of another unseen class
            other.writestr(name, pool.read(unseen[-1 - unseen.index(name)] if name in unseen else name))
    done = trial.run("--fold", "1", pool="other.zip", records="other")
    assert done.returncode == 0, done.stderr
    (other_folder,) = (folder for folder in (trial.folder / "out").glob("fold-1-*") if folder != killed)
    weights = [folder / "tuned.adapted" / "open_clip_model.safetensors" for folder in (killed, other_folder)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    found = json.loads((trial.folder / "other" / "fold-1.json").read_text("utf-8"))
    apart = ("hours", "data")
    assert {key: found[key] for key in found if key not in apart} == {
        key: resumed[key] for key in resumed if key not in apart
    }
    assert found["data"] != resumed["data"]


def test_answers_are_those_of_both_towers_by_torch(trial: Trial, killed: Path, resumed: dict[str, Any]) -> None:
    """Of all labels, and of the unseen ones alone; the tuned tower is another than the one as given."""
    unseen, names = resumed["unseen_labels"], trial.labels.names
    rows = [names.index(name) for name in unseen]
    classes = label_rows(open_dataset(trial.folder / "test.zip"), names)
    of_unseen = np.flatnonzero(np.isin(classes, rows))
    assert unpack_right(resumed["unseen"], 200).nonzero()[0].tolist() == of_unseen.tolist()
    tuned = killed / "tuned.adapted"
    for tower, model in (("given", REFERENCE), ("tuned", tuned)):
        among_all = right_by_torch(model, trial, list(range(10)), list(range(200)))
        among_unseen = right_by_torch(model, trial, rows, of_unseen.tolist())
        assert resumed["right"][tower] == {"all": pack_right(among_all), "unseen": pack_right(among_unseen)}
    assert resumed["right"]["given"]["all"] != resumed["right"]["tuned"]["all"]
    given = (REFERENCE / "open_clip_model.safetensors").read_bytes()
    assert (tuned / "open_clip_model.safetensors").read_bytes() != given


def test_folds_are_assembled_and_not_run_again(trial: Trial, resumed: dict[str, Any]) -> None:
    """The second fold joins the first; other options are refused; no place of the machine is recorded."""
    done = trial.run()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "fold 1: recorded"
    target = trial.folder / "records"
    whole = json.loads((target / "unseen-classes.json").read_text("utf-8"))
    second = json.loads((target / "fold-2.json").read_text("utf-8"))
    assert whole["missing"] == []
    assert set(resumed["unseen_labels"]) | set(second["unseen_labels"]) == set(trial.labels.names)
    differences = []
    for record in (resumed, second):
        given, tuned = (unpack_right(record["right"][tower]["all"], 200) for tower in ("given", "tuned"))
        differences.append((tuned - given)[unpack_right(record["unseen"], 200) == 1])
    (row,) = (row for row in whole["rows"] if row["fold"] is None and row["asked"] == "unseen, all")
    assert row["images"] == 200
    assert row["difference"]["mean"] == np.concatenate(differences).mean()
    text = (target / "unseen-classes.md").read_text("utf-8")
    assert whole["conclusion"] in text
    assert "None is missing." in text
    assert "had been tuned on photos of all 10 classes before" in text
    for path in target.iterdir():
        content = path.read_text("utf-8")
        assert not any(word in content for word in (str(trial.folder), str(ROOT), ".png", "data:image"))
    command = trial.command("--fold", "1")
    command[command.index("--more") + 1] += " --seed 1"
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "fold-1.json was made with other options" in other.stderr


ALIKE = {
    "format": 1,
    "folds": 2,
    "seed": 0,
    "data": {},
    "options": ["--adapt"],
    "hours": 0.5,
    "machine": "a board",
    "adapted": "1 epoch",
    "learned_from": 90,
    "labels": 4,
    "images": 8,
}
"""What does not differ between records that are made."""


def made(fold: int, unseen: str, given: str, tuned: str, narrow: tuple[str, str]) -> dict[str, Any]:
    """Make a record of eight images from bits in words."""

    def bits(text: str) -> str:
        return pack_right(np.array([float(bit) for bit in text]))

    towers = (("given", given, narrow[0]), ("tuned", tuned, narrow[1]))
    return {
        **ALIKE,
        "fold": fold,
        "unseen_labels": ["a", "b"] if fold == 1 else ["c", "d"],
        "unseen": bits(unseen),
        "right": {name: {"all": bits(wide), "unseen": bits(few)} for name, wide, few in towers},
    }


@pytest.fixture
def records() -> dict[int, dict[str, Any]]:
    """Two folds of eight images, four of them unseen in each."""
    return {
        1: made(1, "11110000", "11001111", "10000111", ("1110", "1111")),
        2: made(2, "00001111", "11001110", "11101100", ("1111", "1110")),
    }


def test_differences_are_those_by_hand(scripts: SimpleNamespace, records: dict[int, dict[str, Any]]) -> None:
    """Paired on each image; over all folds unseen images are joined, and seen ones averaged over their folds."""
    whole = scripts.unseen_tables.assembled(records)
    rows = {(row["fold"], row["asked"]): row for row in whole["rows"]}
    by_hand = {
        (1, "unseen, all"): [0, -1, 0, 0],
        (2, "unseen, all"): [0, 0, -1, 0],
        (None, "unseen, all"): [0, -1, 0, 0, 0, 0, -1, 0],
        (1, "unseen, unseen"): [0, 0, 0, 1],
        (2, "unseen, unseen"): [0, 0, 0, -1],
        (None, "unseen, unseen"): [0, 0, 0, 1, 0, 0, 0, -1],
        (1, "seen, all"): [-1, 0, 0, 0],
        (2, "seen, all"): [0, 0, 1, 0],
        (None, "seen, all"): [0, 0, 1, 0, -1, 0, 0, 0],
    }
    assert set(rows) == set(by_hand)
    for key, differences in by_hand.items():
        expected = mean_over_images(np.array(differences, float))
        assert rows[key]["images"] == len(differences)
        assert rows[key]["difference"] == {"mean": expected.mean, "low": expected.low, "high": expected.high}
    assert rows[None, "unseen, all"]["given"]["mean"] == 5 / 8
    assert rows[None, "unseen, all"]["tuned"]["mean"] == 3 / 8


def test_with_several_folds_a_seen_image_counts_once(scripts: SimpleNamespace) -> None:
    """With its mean over the folds in which it was seen."""
    three = [
        made(1, "11100000", "11111111", "11111111", ("111", "111")),
        made(2, "00011100", "11111111", "01111111", ("111", "111")),
        made(3, "00000011", "11111111", "00111111", ("11", "11")),
    ]
    seen = scripts.unseen_tables.pooled(three)["seen, all"]
    assert (seen.tuned - seen.given).tolist() == [-1, -0.5, 0, 0, 0, 0, 0, 0]


def test_the_conclusion_follows_the_figures(scripts: SimpleNamespace, records: dict[int, dict[str, Any]]) -> None:
    """The bound holds or not by the mean alone, the interval is told, and nothing is concluded of a part."""
    whole = scripts.unseen_tables.assembled(records)

    def said(wide: float, narrow: float, width: float = 0.001, **changes: Any) -> str:
        other = copy.deepcopy(whole) | changes
        for row in other["rows"]:
            mean = {"unseen, all": wide, "unseen, unseen": narrow}.get(row["asked"], 0.0)
            row["difference"] = {"mean": mean, "low": mean - width, "high": mean + width}
        text: str = scripts.unseen_tables.conclusion(other)
        return text

    bound = "The bound of at most 1 point of mean loss"
    assert f"{bound} holds, with both intervals within it." in said(-0.005, 0.01)
    assert f"{bound} holds, though the interval among all labels reaches beyond it." in said(-0.0095, 0.0)
    assert f"{bound} does not hold among all labels." in said(-0.011, 0.0)
    assert f"{bound} does not hold among the unseen labels." in said(0.0, -0.011)
    assert f"{bound} does not hold among all and among the unseen labels." in said(-0.02, -0.03)
    assert "is -0.50 (-0.60 to -0.40) points from the tower as given" in said(-0.005, 0.0)
    part = said(0.0, 0.0, missing=[2])
    assert "is not concluded: fold 2 of 2 is missing." in part
    assert bound not in part
    runs = [{**whole["runs"][0], "adapted": "no: tuning moved full depth by -1.00 points; the given trunk is kept"}]
    assert "Fold 1 runs the trunk as given, so its differences are 0: tuning moved" in said(0.0, 0.0, runs=runs)
    assert "had been tuned on photos of all 4 classes before" in part


def test_records_that_do_not_belong_together_are_refused(
    scripts: SimpleNamespace, records: dict[int, dict[str, Any]], tmp_path: Path
) -> None:
    """Other images, and folds that share a class."""
    for fold, change in ((2, {"data": {"pool": "0"}}), (2, {"unseen_labels": ["b", "c"]})):
        for number, record in records.items():
            text = json.dumps(record | (change if number == fold else {}))
            (tmp_path / f"fold-{number}.json").write_text(text, "utf-8")
        with pytest.raises(scripts.part_records.PhotosError, match=r"other data|has 'b', which another fold has too"):
            scripts.unseen_tables.recorded(tmp_path)


def test_wrong_folds_and_missing_inputs_are_named(trial: Trial) -> None:
    """In one line, before anything runs."""
    for more, words in (
        (("--fold", "3"), "there is no fold 3, wanted 1 to 2"),
        (("--fold", "two"), "--fold is 'two', wanted a number from 1"),
        (("--folds", "3"), "10 labels cannot be divided into 3 folds"),
        (("--pool", ""), "PHOTO_POOL="),
    ):
        done = trial.run(*more, records="wrong")
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert words in done.stderr


def test_what_is_committed_is_what_the_folds_say(scripts: SimpleNamespace) -> None:
    """`unseen_classes.py assemble` writes it again; before any fold is recorded there is nothing."""
    script = [sys.executable, str(FOLDER / "unseen_classes.py"), "assemble", "--check"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    found = scripts.unseen_tables.recorded(scripts.unseen_folds.RECORDS)
    assert (FOLDER / "unseen-classes.json").is_file() == bool(found)
