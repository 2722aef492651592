"""Assemble the folds of the evidence on unseen classes: paired differences of both towers, and what they say."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from part_records import PhotosError, Record, read_record
from photo_words import percent, points

from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_benchmarks.analysis.right_answers import unpack_right
from lraee_benchmarks.render.table import Table

MOST_LOSS = 0.01
"""Share of unseen images by which full depth may fall on average."""

ASKED = {
    "unseen, all": "unseen classes, among all {labels} labels",
    "unseen, unseen": "unseen classes, among the {unseen} unseen labels",
    "seen, all": "seen classes, among all {labels} labels",
}
"""Which test images are judged, among which labels, and what that is called."""

Right = NDArray[np.float64]
"""(images,) 1 where an answer is right, else 0; of several folds their mean."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pair:
    """What both towers answer on the same images."""

    given: Right
    tuned: Right

    def row(self) -> dict[str, Any]:
        """Give both accuracies and their paired difference, each with its 95 % interval."""
        values = {"given": self.given, "tuned": self.tuned, "difference": self.tuned - self.given}
        estimates = {name: dataclasses.asdict(mean_over_images(found)) for name, found in values.items()}
        return {"images": len(self.given), **estimates}


def recorded(folder: Path) -> dict[int, Record]:
    """Read the records of all folds that there are, by number.

    Raises:
        PhotosError: two were made from other inputs, or share unseen classes.
    """
    found = {record["fold"]: record for record in map(read_record, sorted(folder.glob("fold-*.json")))}
    found = dict(sorted(found.items()))
    seen_before: set[str] = set()
    for fold, record in found.items():
        first = next(iter(found))
        for key in ("data", "options", "folds", "seed"):
            if record[key] != found[first][key]:
                raise PhotosError(f"folds {first} and {fold} were made with other {key}; run one of them again")
        if twice := seen_before & set(record["unseen_labels"]):
            raise PhotosError(f"fold {fold} has {min(twice)!r}, which another fold has too; remove its record")
        seen_before |= set(record["unseen_labels"])
    return found


def pairs_of(record: Record) -> dict[str, Pair]:
    """Read which images of a fold both towers answer right, by the keys of `ASKED`."""
    unseen = unpack_right(record["unseen"], record["images"]) == 1
    right = {
        tower: {
            "all": unpack_right(found["all"], record["images"]),
            "unseen": unpack_right(found["unseen"], int(unseen.sum())),
        }
        for tower, found in record["right"].items()
    }
    return {
        "unseen, all": Pair(**{tower: found["all"][unseen] for tower, found in right.items()}),
        "unseen, unseen": Pair(**{tower: found["unseen"] for tower, found in right.items()}),
        "seen, all": Pair(**{tower: found["all"][~unseen] for tower, found in right.items()}),
    }


def pooled(records: Sequence[Record]) -> dict[str, Pair]:
    """Put the images of all folds together, by the keys of `ASKED`.

    Each image is unseen in one fold, so that unseen images are joined. It is seen in all others, so that what is right
    on seen images is the mean over these folds, image by image.
    """
    folds = [pairs_of(record) for record in records]
    joined = {
        asked: Pair(
            given=np.concatenate([fold[asked].given for fold in folds]),
            tuned=np.concatenate([fold[asked].tuned for fold in folds]),
        )
        for asked in ("unseen, all", "unseen, unseen")
    }
    images = records[0]["images"]
    seen = np.array([unpack_right(record["unseen"], images) for record in records]) == 0
    counts = seen.sum(axis=0)
    means = {}
    for tower in ("given", "tuned"):
        right = np.array([unpack_right(record["right"][tower]["all"], images) for record in records])
        means[tower] = (right * seen).sum(axis=0)[counts > 0] / counts[counts > 0]
    return {**joined, "seen, all": Pair(**means)}


def assembled(records: Mapping[int, Record]) -> dict[str, Any]:
    """Make the content of ``unseen-classes.json``.

    Args:
        records: by fold, at least one.
    """
    first = next(iter(records.values()))
    whole: dict[str, Any] = {
        "folds": first["folds"],
        "missing": [fold for fold in range(1, first["folds"] + 1) if fold not in records],
        "seed": first["seed"],
        "data": first["data"],
        "options": first["options"],
        "labels": first["labels"],
        "unseen_labels": len(first["unseen_labels"]),
        "runs": [
            {key: record[key] for key in ("fold", "hours", "machine", "adapted", "learned_from", "unseen_labels")}
            for record in records.values()
        ],
        "rows": [
            {"fold": fold, "asked": asked, **pair.row()}
            for fold, pairs in [
                (None, pooled(list(records.values()))),
                *((fold, pairs_of(record)) for fold, record in records.items()),
            ]
            for asked, pair in pairs.items()
        ],
    }
    whole["conclusion"] = conclusion(whole)
    return whole


def conclusion(whole: Record) -> str:
    """Say what tuning costs on unseen classes, and whether the bound holds.

    Args:
        whole: the content of ``unseen-classes.json``, without its conclusion.
    """
    return " ".join(_sentences(whole))


def _sentences(whole: Record) -> Iterator[str]:
    differences = {row["asked"]: row["difference"] for row in whole["rows"] if row["fold"] is None}
    wide, narrow, seen = (differences[asked] for asked in ASKED)
    yield (
        f"On classes that were not seen in tuning, FP32 full depth of the tuned tower is {points(wide)} points from "
        f"the tower as given when asked among all {whole['labels']} labels, and {points(narrow)} when asked among the "
        f"{whole['unseen_labels']} unseen ones; on seen classes it is {points(seen)}."
    )
    bound = f"{100 * MOST_LOSS:g} point"
    if whole["missing"]:
        yield f"Whether the mean loss is at most {bound} is not concluded: {_missing(whole)}."
    else:
        pair = (("all", wide), ("the unseen", narrow))
        if over := [words for words, found in pair if found["mean"] < -MOST_LOSS]:
            yield f"The bound of at most {bound} of mean loss does not hold among {' and among '.join(over)} labels."
        else:
            below = [words for words, found in pair if found["low"] < -MOST_LOSS]
            reach = (
                f"though the interval among {' and among '.join(below)} labels reaches beyond it"
                if below
                else "with both intervals within it"
            )
            yield f"The bound of at most {bound} of mean loss holds, {reach}."
    for run in whole["runs"]:
        if run["adapted"].startswith("no: "):
            yield f"Fold {run['fold']} runs the trunk as given, so its differences are 0: {run['adapted'][4:]}."
    yield (
        f"The tower as given had been tuned on photos of all {whole['labels']} classes before, so unseen means unseen "
        "in this tuning, not never seen."
    )


def _missing(whole: Record) -> str:
    """Name the folds that are not recorded.

    >>> _missing({"missing": [2, 4], "folds": 4})
    'folds 2, 4 of 4 are missing'
    """
    many = len(whole["missing"]) > 1
    numbers = ", ".join(map(str, whole["missing"]))
    return f"fold{'s' if many else ''} {numbers} of {whole['folds']} {'are' if many else 'is'} missing"


def markdown(whole: Record) -> str:
    """Make ``unseen-classes.md`` from the content of ``unseen-classes.json``."""
    return "\n\n".join(_paragraphs(whole)) + "\n"


def _paragraphs(whole: Record) -> Iterator[str]:
    yield "# What tuning the trunk costs on classes that it does not see"
    yield "Written by `make evidence-unseen` from the records of its folds. No photo of the data set is in them."
    yield whole["conclusion"]
    yield (
        f"The {whole['labels']} labels are sorted by the SHA-256 of `{whole['seed']} name` and cut into "
        f"{whole['folds']} folds of {whole['unseen_labels']}. In each fold the trunk is tuned with "
        f"`lraee-export {' '.join(whole['options'])}` on the pool's photos of the other classes alone, with labels; "
        "neither a photo nor a name of the fold's own classes is given to it. Then the tower as given and the tuned "
        "one answer the test images in FP32 at full depth. Exits are not asked."
    )
    yield (
        "Differences are tuned less given, paired image by image, in points, with 95 % bootstrap intervals over "
        "images; the classes, their division and the one tuning of each fold are taken as they are. All folds: every "
        "image is unseen in one of them; on seen classes an image counts with its mean over the others."
    )
    rows = []
    for row in whole["rows"]:
        numbers = [str(run["fold"]) for run in whole["runs"]]
        if row["fold"] is None and len(numbers) == 1:
            continue
        together = f"all {len(numbers)}" if not whole["missing"] else " and ".join(numbers)
        fold = f"**{together}**" if row["fold"] is None else str(row["fold"])
        asked = ASKED[row["asked"]].format(labels=whole["labels"], unseen=whole["unseen_labels"])
        shares = (percent(row[tower]["mean"], 2) for tower in ("given", "tuned"))
        rows.append([fold, asked, f"{row['images']:,}", *shares, points(row["difference"])])
    header = ["folds", "test images", "images", "as given", "tuned", "difference"]
    yield Table(header=header, rows=rows, words=(0, 1)).to_markdown()
    yield "## Folds"
    yield f"{_missing(whole).capitalize()}." if whole["missing"] else "None is missing."
    yield Table(
        header=["fold", "photos learned from and judged by", "tuning", "hours", "machine"],
        rows=[
            [str(run["fold"]), f"{run['learned_from']:,}", run["adapted"], f"{run['hours']:.2f}", run["machine"]]
            for run in whole["runs"]
        ],
        words=(0, 2, 4),
    ).to_markdown()
    for run in whole["runs"]:
        yield f"Unseen in fold {run['fold']}: {', '.join(run['unseen_labels'])}."
