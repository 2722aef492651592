"""Measure what deadlines cost in accuracy, and how late answers are, in a real run over many deadlines.

    python benchmarks/experiments/deadlines.py BUNDLE --images SRC [--calls 10000]
        [--deadlines 4,8,12] [--threads 1] [--json F]

Deadlines take turns from call to call, so that all meet the same disturbances; every call runs one image from
preprocessed pixels. It says most of a bundle with an exit after every block (`lraee-export --exits all`). Without
`--deadlines` they are shares of the time that full depth takes here, from 0.2 to 1.2.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.cli import errors_as_one_line
from lraee.engine.orchestrator import Answers
from lraee.model import Model
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.images import open_source
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import device_line
from lraee_benchmarks.running.rounds import Plan, interleave, time_in_turn, timed
from lraee_calibration_data import label_rows, load_pixels

SHARES = (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.2)
FULL_RUNS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Late:
    """How answers under one deadline came out."""

    ms: float
    calls: int
    accuracy: float
    """Top-1, 0 to 1."""
    block: float
    """Mean block whose answer was given."""
    p50_ms: float
    late: float
    """Share of the calls that ended after the deadline."""
    late_p99_ms: float
    """Overshoot that 1 % of all calls exceed."""
    late_most_ms: float


def measure(
    model: Model, pixels: NDArray[np.uint8], classes: NDArray[np.int64], deadlines: list[float], calls: int
) -> list[Late]:
    """Run `calls` images in all, the deadlines in turn.

    Args:
        model: a bundle with exits, warmed.
        pixels: (images, size, size, 3) uint8.
        classes: (images,) label index.
        deadlines: milliseconds.
        calls: over all deadlines.
    """
    answers: list[list[Answers]] = [[] for _ in deadlines]

    def run(which: int, row: int) -> None:
        policy = lraee.Deadline(deadlines[which])
        answers[which].append(model.run_pixels(pixels[row : row + 1], policy=policy))

    plan = Plan(warmup_rounds=0, rounds=calls // len(deadlines), min_seconds=0.0, seed=0)
    measured = interleave([timed(partial(run, which)) for which in range(len(deadlines))], len(pixels), plan)
    wanted = classes[measured.batch_of_round]
    found = []
    for ms, took, given in zip(deadlines, measured.samples_ms.T, answers, strict=True):
        over = np.maximum(took - ms, 0)
        labels = np.array([answer.probabilities[0].argmax() for answer in given])
        found.append(
            Late(
                ms=ms,
                calls=len(took),
                accuracy=float((labels == wanted).mean()),
                block=float(np.mean([answer.exit_block[0] for answer in given])),
                p50_ms=float(np.median(took)),
                late=float((over > 0).mean()),
                late_p99_ms=float(np.quantile(over, 0.99)),
                late_most_ms=float(over.max()),
            )
        )
    return found


def table(found: list[Late]) -> Table:
    """Make a table with one row for each deadline."""
    rows = [
        [
            f"{row.ms:.1f}",
            f"{row.calls:,}",
            f"{100 * row.accuracy:.2f} %",
            f"{row.block:.1f}",
            f"{row.p50_ms:.1f}",
            f"{100 * row.late:.1f} %",
            f"{row.late_p99_ms:.2f}",
            f"{row.late_most_ms:.2f}",
        ]
        for row in found
    ]
    header = ("deadline ms", "calls", "top-1", "mean block", "p50 ms", "late", "late p99 ms", "late most ms")
    return Table(header=header, rows=rows, words=())


def main() -> None:
    """Parse, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--images", required=True, help="labelled folder or zip")
    parser.add_argument("--image-count", type=int, default=1000, help="different images")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--deadlines", help="milliseconds, with commas")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with errors_as_one_line():
        model = lraee.load(arguments.bundle, threads=arguments.threads)
        dataset = open_source(arguments.images)
        dataset = dataset.subset(range(0, len(dataset), max(1, len(dataset) // arguments.image_count)))
        pixels = load_pixels(dataset, model.manifest.preprocessing).pixels
        classes = label_rows(dataset, model.labels)
        model.warm()
        full = float(np.median(time_in_turn([lambda: model.run_pixels(pixels[:1], policy=lraee.Full())], FULL_RUNS)))
        deadlines = [share * full for share in SHARES]
        if arguments.deadlines:
            deadlines = [float(word) for word in arguments.deadlines.split(",")]
        found = measure(model, pixels, classes, deadlines, arguments.calls)
    device, threads = device_line(describe_device()), model.threads
    print(f"{device}; threads {threads}, batch 1; full depth {full:.1f} ms\n\n{table(found).to_markdown()}")
    if arguments.json is not None:
        rows = [asdict(row) for row in found]
        arguments.json.write_text(json.dumps({"device": device, "threads": threads, "full_ms": full, "rows": rows}))


if __name__ == "__main__":
    main()
