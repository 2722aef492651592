"""Measure what gates fitted for the exported labels cost when the labels are others.

    python benchmarks/experiments/label_sets.py [--images TEST.zip] [--point balanced] [--json F]

For the reference, whose text tower knows the words below. Gates and thresholds stay as they are, which is what
`Model.set_labels` does. What early exit then loses against full depth stands next to what it loses with the exported
labels on the same images.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.cli import errors_as_one_line
from lraee.model import Model
from lraee_benchmarks.analysis.intervals import mean_interval
from lraee_benchmarks.images import open_source
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.results.model import Interval
from lraee_calibration_data import fashion_mnist_test, label_rows, load_pixels

BATCH = 50

Words = Sequence[tuple[str, Sequence[int]]]
"""Labels, each with the classes of Fashion-MNIST that it is right for."""

NAMES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
FIRST = ("tee", "pair of trousers", "sweater", "gown", "jacket", "open shoe", "blouse", "trainer", "handbag", "boot")
SECOND = ("tee shirt", "pants", "jumper", "gown", "overcoat", "strappy shoe", "buttoned shirt", "running shoe", "purse")


def some(*classes: int) -> Words:
    """A few of the exported labels, for images of their classes."""
    return [(NAMES[c], (c,)) for c in classes]


SETS: dict[str, Words] = {
    "exported": some(*range(10)),
    "synonyms": [(word, (c,)) for c, word in enumerate(FIRST)],
    "other synonyms": [(word, (c,)) for c, word in enumerate((*SECOND, "bootie"))],
    "tops only": some(0, 2, 4, 6),
    "shoes only": some(5, 7, 9),
    "five, far apart": some(1, 3, 5, 8, 9),
    "t-shirt or shirt": some(0, 6),
    "pullover or coat": some(2, 4),
    "shoe, garment, bag": [("shoe", (5, 7, 9)), ("garment", (0, 1, 2, 3, 4, 6)), ("bag", (8,))],
    "top, trousers, dress, shoe, bag": [
        ("top", (0, 2, 4, 6)),
        ("trousers", (1,)),
        ("dress", (3,)),
        ("shoe", (5, 7, 9)),
        ("bag", (8,)),
    ],
    "names and synonyms together": [(word, (c,)) for words in (NAMES, FIRST) for c, word in enumerate(words)],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What early exit loses on one label set."""

    labels: str
    images: int
    full: float
    """Accuracy at full depth, 0 to 1; a label of the image's class is right."""
    exported_points: float
    """`points` of the exported labels on the same images."""
    points: float
    """Accuracy minus that of full depth, times 100."""
    interval: Interval
    saved: float
    """Share of FLOPs saved."""


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """How all images were answered with one label set."""

    full: NDArray[np.bool_]
    """(images,) whether the label at full depth is one of the image's class."""
    early: NDArray[np.bool_]
    """The same at the operating point."""
    saved: NDArray[np.float64]
    """(images,) share of the FLOPs of full depth that the operating point saved."""

    def points(self, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Points that early exit gains on each of some images, -100, 0 or 100."""
        return 100.0 * (self.early[rows].astype(np.float64) - self.full[rows])


def answer(model: Model, pixels: NDArray[np.uint8], right: NDArray[np.bool_], point: str) -> Answered:
    """Run all images at full depth and at an operating point.

    Args:
        model: with the label set.
        pixels: (images, size, size, 3) uint8.
        right: (images, labels) whether a label is right for an image.
        point: name of the operating point.
    """
    full, early, saved = [], [], []
    for start in range(0, len(pixels), BATCH):
        batch, known = pixels[start : start + BATCH], right[start : start + BATCH]
        whole, left = (model.run_pixels(batch, policy=policy) for policy in (lraee.Full(), lraee.Adaptive(point)))
        rows = np.arange(len(batch))
        full.append(known[rows, whole.probabilities.argmax(axis=1)])
        early.append(known[rows, left.probabilities.argmax(axis=1)])
        saved.append(1 - model.flops_of_run(left) / model.flops_of_run(whole))
    return Answered(np.concatenate(full), np.concatenate(early), np.concatenate(saved))


def measure(model: Model, pixels: NDArray[np.uint8], classes: NDArray[np.int64], point: str) -> list[Loss]:
    """All label sets, the exported one first; `classes` are (images,) indices into `NAMES`."""
    answers: dict[str, Answered] = {}
    found = []
    for name, words in SETS.items():
        model.set_labels([word for word, _ in words])
        right = np.stack([np.isin(classes, members) for _, members in words], axis=1)
        answers[name] = now = answer(model, pixels, right, point)
        rows = right.any(axis=1)
        found.append(
            Loss(
                labels=name,
                images=int(rows.sum()),
                full=float(now.full[rows].mean()),
                exported_points=float(answers["exported"].points(rows).mean()),
                points=float(now.points(rows).mean()),
                interval=mean_interval(now.points(rows), seed=0),
                saved=float(now.saved[rows].mean()),
            )
        )
    return found


def table(found: Sequence[Loss]) -> str:
    """As Markdown, one row for each label set."""
    rows = [
        [
            loss.labels,
            f"{loss.images:,}",
            f"{loss.full:.2%}",
            f"{loss.exported_points:+.2f}",
            f"{loss.points:+.2f} ({loss.interval.low:+.2f} to {loss.interval.high:+.2f})",
            f"{loss.saved:.0%}",
        ]
        for loss in found
    ]
    header = ("labels", "images", "full depth", "points, exported labels", "points", "FLOPs saved")
    return Table(header=header, rows=rows).to_markdown()


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="reference", help="of the reference, with its text tower")
    parser.add_argument("--images", help="labelled folder or zip of Fashion-MNIST; by default the shipped test images")
    parser.add_argument("--point", default="balanced", help="operating point")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with errors_as_one_line():
        model = lraee.load(arguments.bundle, threads=arguments.threads)
        dataset = open_source(arguments.images or str(fashion_mnist_test()))
        pixels = load_pixels(dataset, model.manifest.preprocessing).pixels
        found = measure(model, pixels, label_rows(dataset, NAMES), arguments.point)
    print(f"{arguments.bundle} at `{arguments.point}`; points are those to full depth, with 95 % intervals\n")
    print(table(found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(loss) for loss in found], indent=1))


if __name__ == "__main__":
    main()
