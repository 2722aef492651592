"""Whether a tower's mean answer over several views is right more often than its answer alone: see --teacher-views.

    python toolchain/experiments/teacher_views.py BUNDLE --images SOURCE [--labels FILE] [--views 1,2,4,8]

BUNDLE runs at full depth; take one of `lraee-export --precision fp32 --exits none`. Views are those that the export
makes: the image, its mirror, then crops. Images should be those that heads learn from, not those of the last judgement.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import lraee
from lraee.cli import errors_as_one_line
from lraee.labels.label_file import read_label_file
from lraee.policies import Full
from lraee_benchmarks.images import open_source
from lraee_benchmarks.render.table import Table
from lraee_calibration_data import label_rows, load_pixels
from lraee_toolchain.data.teacher_views import view

BATCH = 64


def measure(
    bundle: str, images: str, *, labels: Path | None, views: Sequence[int], count: int | None, flip: bool
) -> dict[int, float]:
    """Measure top-1 of the mean answer, 0 to 1, by number of views.

    Args:
        bundle: folder or name.
        images: folder, zip or name of labelled images.
        labels: the export's label file, where it maps folders to labels.
        views: numbers to measure.
        count: images, evenly spaced; None takes all.
        flip: whether every second view is mirrored.
    """
    model, dataset = lraee.load(bundle), open_source(images)
    folders = () if labels is None else read_label_file(labels).folders
    classes = label_rows(dataset, model.labels, folders)
    rows = np.arange(0, len(classes), max(1, len(classes) // (count or len(classes))))
    right = dict.fromkeys(views, 0)
    for at in range(0, len(rows), BATCH):
        chosen = rows[at : at + BATCH]
        pixels = load_pixels(dataset, model.manifest.preprocessing, chosen).pixels
        total = np.zeros((len(chosen), len(model.labels)))
        for number in range(max(views)):
            seen = view(pixels, number, first=at, flip=flip, seed=0)
            total += model.run_pixels(seen, policy=Full()).probabilities
            if number + 1 in right:
                right[number + 1] += int((total.argmax(axis=1) == classes[chosen]).sum())
    return {number: found / len(rows) for number, found in right.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write JSON where that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", help="folder, photo-clip or reference")
    parser.add_argument("--images", required=True, help="labelled folder or zip, or fashion-mnist")
    parser.add_argument("--labels", type=Path, help="the export's label file, where it maps folders to labels")
    parser.add_argument("--views", default="1,2,4,8", help="numbers of views (default: %(default)s)")
    parser.add_argument("--count", type=int, help="images, evenly spaced; all by default")
    parser.add_argument("--no-flip", action="store_true", help="mirror no view")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    views = sorted({int(number) if number.isdecimal() else 0 for number in given.views.split(",")})
    if views[0] < 1:
        parser.error(f"--views is {given.views}, wanted numbers from 1 such as 1,2,4")
    settings: dict[str, Any] = {"labels": given.labels, "count": given.count, "flip": not given.no_flip}
    with errors_as_one_line():
        found = measure(given.bundle, given.images, views=views, **settings)
    rows = [[str(number), f"{100 * share:.2f} %"] for number, share in found.items()]
    print(Table(header=["views", "top-1"], rows=rows).to_markdown())
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
