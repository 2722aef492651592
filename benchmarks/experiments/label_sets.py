"""Measure what gates fitted for the exported labels cost when the labels are others.

    python benchmarks/experiments/label_sets.py [--images TEST.zip] [--point balanced] [--photos 1000] [--json F]

For the reference, whose text tower knows the words below. Five ways are compared with what the exported labels lose on
the same images: the gates as they are, which is what `Model.set_labels` does; gates that judge the exported labels
while the answer is among the new ones (`anchors`); an exit only where both judge well (`both`); and two that need
unlabelled photos: a temperature that gives the new labels the mean confidence of the exported ones (`temperature`), and
one shift of all thresholds, so that answers agree with full depth as often as among the exported labels (`refit`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.bundle.manifest import ExitInfo
from lraee.cli import errors_as_one_line
from lraee.model import Model
from lraee_benchmarks.analysis.intervals import mean_interval
from lraee_benchmarks.images import open_source
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.results.model import Interval
from lraee_calibration_data import fashion_mnist_test, label_rows, load_pixels

FloatArray = NDArray[np.float32]

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
    """What one way loses on one label set."""

    labels: str
    way: str
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


class Gathered:
    """Embeddings of all images at every exit and at full depth; labels and gates are arithmetic from there."""

    def __init__(self, model: Model, pixels: NDArray[np.uint8]) -> None:
        parts, depth = model.parts, model.parts.depth
        self.model = model
        self.exits = model.manifest.exits
        found: dict[int, list[FloatArray]] = {block: [] for block in (*(e.block for e in self.exits), depth + 1)}
        variance: dict[int, list[FloatArray]] = {e.block: [] for e in self.exits}
        for start in range(0, len(pixels), 50):
            tokens = parts.stem(pixels[start : start + 50])
            for block in range(1, depth + 1):
                tokens = parts.block(block, tokens)
                if parts.has_exit(block):
                    verdict = parts.exit(block, tokens, np.arange(len(tokens)))
                    found[block].append(verdict.embedding)
                    variance[block].append(verdict.features[:, 2])
            found[depth + 1].append(parts.tail(tokens)[0])
        self.embeddings = {block: np.concatenate(rows) for block, rows in found.items()}
        self.variance = {block: np.concatenate(rows) for block, rows in variance.items()}

    def full(self, rows: NDArray[np.intp], labels: FloatArray) -> NDArray[np.intp]:
        """Answers at full depth; `labels` (labels, embed_dim)."""
        return np.asarray((self.embeddings[self.model.parts.depth + 1][rows] @ labels.T).argmax(axis=1))

    def judge(
        self, exit: ExitInfo, rows: NDArray[np.intp], labels: FloatArray, temperature: float = 1.0
    ) -> tuple[NDArray[np.intp], FloatArray, FloatArray]:
        """Answers, their confidence, and the gate's logit at one exit."""
        scale = self.model.manifest.logit_scale / exit.temperature / temperature
        logits = scale * self.embeddings[exit.block][rows] @ labels.T
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        two = -np.partition(-odds / odds.sum(axis=1, keepdims=True), 1, axis=1)[:, :2]
        features = np.stack([two[:, 0], two[:, 0] - two[:, 1], self.variance[exit.block][rows]], axis=1)
        return logits.argmax(axis=1), two[:, 0], features @ np.array(exit.gate.weights) + exit.gate.bias

    def leave(
        self,
        rows: NDArray[np.intp],
        labels: FloatArray,
        thresholds: dict[int, float],
        judge: Callable[[ExitInfo, NDArray[np.intp]], FloatArray],
    ) -> tuple[NDArray[np.intp], FloatArray]:
        """Answers and FLOPs of images that leave where `judge` gives at least the threshold's logit."""
        manifest = self.model.manifest
        answers, flops = self.full(rows, labels), np.zeros(len(rows))
        inside, cost, last = np.ones(len(rows), np.bool_), manifest.flops_of("stem", len(labels)), 0
        for exit in self.exits:
            if exit.block in thresholds:
                cost += sum(manifest.flops_of(f"block_{b:02d}", 0) for b in range(last + 1, exit.block + 1))
                cost += manifest.flops_of(exit.part, len(labels))
                last = exit.block
                leaving = inside & (judge(exit, rows) >= thresholds[exit.block])
                answers[leaving] = self.judge(exit, rows, labels)[0][leaving]
                flops[leaving] = cost
                inside &= ~leaving
        blocks = range(last + 1, manifest.tower.blocks + 1)
        rest = sum(manifest.flops_of(f"block_{b:02d}", 0) for b in blocks) + manifest.flops_of("tail", len(labels))
        flops[inside] = cost + rest
        return answers, flops


def thresholds_of(model: Model, point: str) -> dict[int, float]:
    """Logits of an operating point's thresholds, by block."""
    (chosen,) = [p for p in model.manifest.operating_points if p.name == point]
    return {t.block: float(np.log(t.value / (1 - t.value))) for t in chosen.thresholds}


def ways(
    gathered: Gathered, labels: FloatArray, anchors: FloatArray, thresholds: dict[int, float], photos: NDArray[np.intp]
) -> dict[str, Callable[[NDArray[np.intp]], tuple[NDArray[np.intp], FloatArray]]]:
    """Each way to leave as a function from images to answers and FLOPs.

    Args:
        gathered: of all images.
        labels: the new ones, (labels, embed_dim).
        anchors: the exported ones.
        thresholds: logits by block.
        photos: rows of the unlabelled photos.
    """

    def own(exit: ExitInfo, rows: NDArray[np.intp]) -> FloatArray:
        return gathered.judge(exit, rows, labels)[2]

    def anchor(exit: ExitInfo, rows: NDArray[np.intp]) -> FloatArray:
        return gathered.judge(exit, rows, anchors)[2]

    def confidence(among: FloatArray, temperature: float = 1.0) -> float:
        return float(np.mean([gathered.judge(e, photos, among, temperature)[1].mean() for e in gathered.exits]))

    def disagreement(among: FloatArray, shift: float) -> float:
        moved = {block: value + shift for block, value in thresholds.items()}
        judge = own if among is labels else anchor
        answers, _ = gathered.leave(photos, among, moved, judge)
        return float((answers != gathered.full(photos, among)).mean())

    wanted = confidence(anchors)
    temperature = min(np.geomspace(0.25, 4, 65), key=lambda t: abs(confidence(labels, float(t)) - wanted))
    allowed = disagreement(anchors, 0)
    shifts = takewhile(lambda shift: disagreement(labels, shift) <= allowed, np.arange(6, -6.05, -0.1))
    moved = {block: value + float(min(shifts, default=6)) for block, value in thresholds.items()}
    return {
        "as it is": lambda rows: gathered.leave(rows, labels, thresholds, own),
        "anchors": lambda rows: gathered.leave(rows, labels, thresholds, anchor),
        "both": lambda rows: gathered.leave(
            rows, labels, thresholds, lambda exit, some: np.minimum(own(exit, some), anchor(exit, some))
        ),
        "temperature": lambda rows: gathered.leave(
            rows, labels, thresholds, lambda exit, some: gathered.judge(exit, some, labels, float(temperature))[2]
        ),
        "refit": lambda rows: gathered.leave(rows, labels, moved, own),
    }


def measure(model: Model, gathered: Gathered, classes: NDArray[np.int64], photos: int, point: str) -> list[Loss]:
    """All ways on all label sets.

    Args:
        model: the reference.
        gathered: of all images.
        classes: (images,) index into `NAMES`.
        photos: so many images, drawn at random, are the unlabelled photos; the others are judged.
        point: operating point.
    """
    order = np.random.default_rng(0).permutation(len(classes))
    held, judged = order[:photos], order[photos:]
    anchors, thresholds = model.bundle.label_embeddings, thresholds_of(model, point)
    found = []
    for name, words in SETS.items():
        model.set_labels([word for word, _ in words])
        labels = np.ascontiguousarray(model.parts.labels.matrix.T)
        right = np.zeros((len(NAMES), len(words)), np.bool_)
        for column, (_, members) in enumerate(words):
            right[list(members), column] = True
        known = right.any(axis=1)[classes]
        rows, seen = judged[known[judged]], held[known[held]]
        full = right[classes[rows], gathered.full(rows, labels)]
        usual, _ = gathered.leave(rows, anchors, thresholds, lambda exit, some: gathered.judge(exit, some, anchors)[2])
        before = (usual == classes[rows]).mean() - (gathered.full(rows, anchors) == classes[rows]).mean()
        for way, run in ways(gathered, labels, anchors, thresholds, seen).items():
            answers, flops = run(rows)
            difference = 100.0 * (right[classes[rows], answers].astype(float) - full)
            whole = model.manifest.full_flops + (len(words) - len(anchors)) * 2 * labels.shape[1]
            found.append(
                Loss(
                    labels=name,
                    way=way,
                    images=len(rows),
                    full=float(full.mean()),
                    exported_points=float(100 * before),
                    points=float(difference.mean()),
                    interval=mean_interval(difference, seed=0),
                    saved=float(1 - flops.mean() / whole),
                )
            )
    return found


def check(model: Model, gathered: Gathered, pixels: NDArray[np.uint8], point: str) -> None:
    """Hold the arithmetic here against the runtime itself, with labels that are not the exported ones.

    Raises:
        AssertionError: they differ in more than one image of 500.
    """
    model.set_labels([word for word, _ in SETS["shoe, garment, bag"]])
    labels = np.ascontiguousarray(model.parts.labels.matrix.T)
    rows, thresholds = np.arange(min(500, len(pixels))), thresholds_of(model, point)
    answers, flops = gathered.leave(rows, labels, thresholds, lambda exit, some: gathered.judge(exit, some, labels)[2])
    ran = model.run_pixels(pixels[rows], policy=lraee.Adaptive(point))
    differ = (ran.probabilities.argmax(axis=1) != answers) | (model.flops_of_run(ran) != flops)
    assert differ.sum() <= 1, f"{differ.sum()} of {len(rows)} images differ from the runtime"


def table(found: Sequence[Loss]) -> str:
    """As Markdown: one row for each label set, one pair of columns for each way."""
    names = list(dict.fromkeys(loss.way for loss in found))
    head = ["labels", "images", "full depth", "exported labels", *(f"{way}: points, FLOPs saved" for way in names)]
    lines = []
    for labels in dict.fromkeys(loss.labels for loss in found):
        row = [loss for loss in found if loss.labels == labels]
        cells = [labels, f"{row[0].images:,}", f"{row[0].full:.2%}", f"{row[0].exported_points:+.2f}"]
        cells += [f"{r.points:+.2f} ({r.interval.low:+.2f} to {r.interval.high:+.2f}), {r.saved:.0%}" for r in row]
        lines.append(cells)
    return Table(header=head, rows=lines).to_markdown()


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", default="reference", help="of the reference, with its text tower")
    parser.add_argument("--images", help="labelled folder or zip of Fashion-MNIST; by default the shipped test images")
    parser.add_argument("--point", default="balanced", help="operating point")
    parser.add_argument("--photos", type=int, default=1000, help="images that serve as unlabelled photos")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.photos < 50:
        parser.error(f"--photos is {arguments.photos}, wanted at least 50, so that each label set has some")
    with errors_as_one_line():
        model = lraee.load(arguments.bundle, threads=arguments.threads)
        dataset = open_source(arguments.images or str(fashion_mnist_test()))
        pixels = load_pixels(dataset, model.manifest.preprocessing).pixels
        classes = label_rows(dataset, NAMES)
        gathered = Gathered(model, pixels)
        check(model, gathered, pixels, arguments.point)
        found = measure(model, gathered, classes, arguments.photos, arguments.point)
    print(f"{arguments.bundle} at `{arguments.point}`; points are those to full depth, with 95 % intervals\n")
    print(table(found))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([asdict(loss) for loss in found], indent=1))


if __name__ == "__main__":
    main()
