"""Run one fold of the evidence on unseen classes: tune the trunk without a part of the classes, then judge both towers.

What `lraee-export --adapt` is given for a fold is made from the seen classes alone: a zip of their photos, and a file
of their names. The unseen classes come in only afterwards, where the float tower as given and the tuned one embed the
test images at full depth, and embeddings are compared with the texts of all labels, or of the unseen ones. The text
tower does not change, so that the label embeddings of the tower as given serve both.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from part_records import FORMAT, PhotosError, Record, kept_record, ran_on, timed, write_whole
from photo_parts import TUNING, Data

import lraee
from lraee.bundle.folder import Bundle
from lraee.labels.label_file import read_label_file
from lraee.labels.label_set import LabelSet
from lraee.policies import Full
from lraee_benchmarks.analysis.right_answers import pack_right
from lraee_calibration_data import Dataset, label_rows, load_pixels, open_dataset

RECORDS = Path(__file__).resolve().parent / "unseen"

FOLDS = 4

SEED = 0
"""Of the division into folds."""

EXPECTED_HOURS = 0.5
"""Of one fold with 15,000 photos of 112 x 112 pixels, on 2 cores with fast bf16."""

FLOAT = ("--precision", "fp32", "--text", "none")
"""Options of every export: FP32 at full depth is all that is asked."""

LITTLE = ("--reads", "patch_mean", "--epochs", "1", "--max-accuracy-drop", "100")
"""Options of the tuning export besides those of tuning: its exits are not asked, so they cost as little as they can."""

BATCH = 64

FloatArray: TypeAlias = NDArray[np.float32]


def divide(names: Sequence[str], folds: int = FOLDS, seed: int = SEED) -> list[list[str]]:
    """Divide labels into folds of equal size by a fixed rule that depends on names and seed alone.

    Names are sorted by the SHA-256 of seed, blank and name in UTF-8, and cut into `folds` runs of equal length. Neither
    the order of the file nor the version of a generator of random numbers matters.

    Args:
        names: different labels.
        folds: at least 2.
        seed: another one gives other folds.

    Raises:
        PhotosError: the labels cannot be divided into equal folds of at least two, which an answer chooses from.

    >>> divide(["cat", "dog", "owl", "ape"], 2)
    [['ape', 'owl'], ['cat', 'dog']]
    """
    size, left = divmod(len(names), folds) if folds >= 2 else (0, 0)
    if size < 2 or left:
        raise PhotosError(
            f"{len(names)} labels cannot be divided into {folds} folds of equal size, wanted at least 2 folds of at "
            "least 2 labels; give --folds another number, or other labels"
        )
    ordered = sorted(names, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    return [sorted(ordered[at : at + size]) for at in range(0, len(ordered), size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRunner:
    """Runs folds and keeps their records."""

    data: Data
    out: Path
    """Bundles and work folders, in a folder for each fold and its inputs."""
    records: Path = RECORDS
    folds: int = FOLDS
    more: tuple[str, ...] = ()
    """Options of the tuning export after all others, to try things out with few passes."""

    def run(self, fold: int) -> Record:
        """Give the record of a fold, which is run unless it is there. Interrupted, the next run goes on.

        Args:
            fold: from 1.

        Raises:
            PhotosError: there is no such fold, the record was made from other inputs, or a command failed.
            LraeeError: images or labels do not fit.
        """
        if not 1 <= fold <= self.folds:
            raise PhotosError(f"there is no fold {fold}, wanted 1 to {self.folds}")
        labels = read_label_file(self.data.labels)
        unseen = divide(labels.names, self.folds)[fold - 1]
        wanted = {
            "data": self.data.fingerprints(),
            "options": [*TUNING, *FLOAT, *LITTLE, *self.more],
            "folds": self.folds,
            "seed": SEED,
        }
        path = self.records / f"fold-{fold}.json"
        if (found := kept_record(path, wanted)) is not None:
            print(f"fold {fold}: recorded")
            return found
        words = f"{len(unseen)} of {len(labels.names)} classes are not seen"
        print(f"fold {fold} of {self.folds}: {words}, about {EXPECTED_HOURS:g} h", flush=True)
        key = hashlib.sha256(json.dumps(wanted).encode()).hexdigest()[:8]
        folder = self.out / f"fold-{fold}-{key}"
        folder.mkdir(parents=True, exist_ok=True)
        given, of_given = self._given()
        images = self._tune(labels, unseen, folder, depth=given.manifest.tower.blocks)
        begun = time.monotonic()
        embeddings = {"given": of_given, "tuned": embed(folder / "tuned.lraee", self.data.test)}
        hours = (float((folder / "seconds").read_text()) + time.monotonic() - begun) / 3600
        record = {
            "format": FORMAT,
            "fold": fold,
            **wanted,
            "hours": round(hours, 3),
            **ran_on(),
            "adapted": Bundle(folder / "tuned.lraee").manifest.provenance["adapted"],
            "learned_from": images,
            "labels": len(labels.names),
            "unseen_labels": unseen,
            **self._answers(labels, unseen, given.label_embeddings, embeddings),
        }
        self.records.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(record, separators=(",", ":")) + "\n")
        shutil.rmtree(folder / "work", ignore_errors=True)
        return record

    def _given(self) -> tuple[Bundle, FloatArray]:
        """Export the tower as given, and embed the test images with it, once for all folds."""
        data = self.data.fingerprints()
        key = hashlib.sha256(json.dumps([data["model"], data["labels"], data["test"]]).encode()).hexdigest()[:8]
        folder = self.out / f"given-{key}"
        bundle, kept = folder / "given.lraee", folder / "embeddings.npy"
        if not bundle.is_dir():
            folder.mkdir(parents=True, exist_ok=True)
            labels = ("--labels", str(self.data.labels))
            timed(export(self.data.model, bundle, *labels, "--exits", "none", *FLOAT), folder / "seconds")
        if not kept.is_file():
            half = folder / "half.npy"
            np.save(half, embed(bundle, self.data.test))
            os.replace(half, kept)
        return Bundle(bundle), np.load(kept)

    def _tune(self, labels: LabelSet, unseen: Sequence[str], folder: Path, *, depth: int) -> int:
        """Export the tower tuned on the seen classes, and nothing else, to ``tuned.lraee``; the images given to it."""
        write_labels(labels, unseen, folder / "seen.json")
        images = write_photos(self.data.pool, labels, unseen, folder / "seen.zip")
        sources = ("--train", str(folder / "seen.zip"), "--labels", str(folder / "seen.json"))
        options = (*TUNING, "--supervision", "labels", "--exits", str(depth - 1), *FLOAT, *LITTLE, *self.more)
        command = export(self.data.model, folder / "tuned.lraee", *sources, "--work", str(folder / "work"), *options)
        timed(command, folder / "seconds")
        return images

    def _answers(
        self, labels: LabelSet, unseen: Sequence[str], texts: FloatArray, embeddings: dict[str, FloatArray]
    ) -> dict[str, Any]:
        """Say which test images are of unseen classes, and which of them each tower answers right."""
        classes = label_rows(open_dataset(self.data.test), labels.names, labels.folders)
        rows = np.array([labels.names.index(name) for name in unseen])
        chosen = np.isin(classes, rows)
        if not chosen.any() or chosen.all():
            raise PhotosError(f"{self.data.test} has no image of seen classes, or none of unseen ones; give others")
        right = {
            tower: {
                "all": right_among(found, texts, np.arange(len(texts)), classes),
                "unseen": right_among(found[chosen], texts, rows, classes[chosen]),
            }
            for tower, found in embeddings.items()
        }
        return {"images": len(classes), "unseen": pack_right(chosen.astype(np.float64)), "right": right}


def export(model: Path, bundle: Path, *options: str) -> list[str]:
    """Make the command of an export; it replaces what a run that was killed had finished."""
    return [sys.executable, "-m", "lraee_toolchain.cli", str(model), "-o", str(bundle), "--overwrite", *options]


def embed(bundle: Path, images: Path) -> FloatArray:
    """Embed all images of a folder or zip at full depth, (images, embed_dim) float32 of unit length."""
    model, dataset = lraee.load(bundle), open_dataset(images)
    found = [
        model.run_pixels(load_pixels(dataset, model.manifest.preprocessing, indices).pixels, policy=Full()).embedding
        for indices in dataset.batches(BATCH)
    ]
    return np.concatenate(found)


def right_among(embeddings: FloatArray, texts: FloatArray, rows: NDArray[np.intp], classes: NDArray[np.int64]) -> str:
    """Say which images are answered right among some labels, as `pack_right` writes it.

    Args:
        embeddings: (images, embed_dim).
        texts: (labels, embed_dim) embeddings of all labels.
        rows: (asked,) the labels that an answer is chosen from.
        classes: (images,) row of the right label.
    """
    answers = rows[(embeddings @ texts[rows].T).argmax(axis=1)]
    return pack_right((answers == classes).astype(np.float64))


def write_labels(labels: LabelSet, unseen: Sequence[str], path: Path) -> None:
    """Write a label file without the unseen labels and their folders, with the same templates."""
    folders = {folder: label for folder, label in labels.folders if label not in unseen}
    mapped = set(folders.values())
    named = {name: name for name in labels.names if name not in unseen and name not in mapped}
    kept = {"names": {**named, **folders}, "templates": list(labels.templates)}
    write_whole(path, json.dumps(kept, indent=1) + "\n")


def write_photos(pool: Path, labels: LabelSet, unseen: Sequence[str], path: Path) -> int:
    """Write a zip of the photos of the seen classes, byte for byte; their number."""
    dataset: Dataset = open_dataset(pool)
    rows = label_rows(dataset, labels.names, labels.folders)
    half, count = path.with_name(f".{path.name}.half"), 0
    with zipfile.ZipFile(half, "w") as archive:
        for index, row in enumerate(rows):
            if labels.names[row] not in unseen:
                archive.writestr(zipfile.ZipInfo(dataset.samples[index].key), dataset.read_bytes(index))
                count += 1
    os.replace(half, path)
    return count
