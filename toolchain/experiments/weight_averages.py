"""Average the weights of an image tower as given with those of its tuned copy, and see what full depth answers.

    python toolchain/experiments/weight_averages.py GIVEN TUNED --images SRC --labels FILE [--share 0.5]...
        [--fold benchmarks/evidence/unseen/fold-1.json] [--json F]

TUNED is what an export leaves in ``OUT.adapted``. A share of 0 is the tower as given, and 1 the tuned one. With --fold,
the classes that this fold of `make evidence-unseen` did not see stand in columns of their own, so that one sees what
tuning costs there, and how much of it an average gives back. Differences are paired image by image.

`lraee-export --adapt --adapt-average 0.5` exports such an average, with exits that learn on it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lraee.cli import errors_as_one_line
from lraee.errors import LabelsError
from lraee.labels.label_file import read_label_file
from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_benchmarks.images import open_source
from lraee_benchmarks.render.table import Table
from lraee_calibration_data import label_rows, load_pixels
from lraee_exporters.labels import embed_labels
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model
from lraee_toolchain.adaptation.averaging import averaged
from lraee_toolchain.adaptation.views import Views

BATCH = 64

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Of the tuned weights, unless others are asked for."""

FloatArray = NDArray[np.float32]


def embed(model: LoadedModel, pixels: NDArray[np.uint8]) -> FloatArray:
    """Embed (images, size, size, 3) uint8 at full depth, (images, embed_dim) float32 of unit length."""
    made = model.tower.preprocessing
    views = Views(mean=made.mean, std=made.std, device=torch.device("cpu"))
    with torch.inference_mode():
        found = [
            model.torch_model.encode_image(views.plain(pixels[at : at + BATCH]), normalize=True)
            for at in range(0, len(pixels), BATCH)
        ]
    return np.asarray(torch.cat(found), np.float32)


def right(embeddings: FloatArray, texts: FloatArray, rows: NDArray[np.intp], classes: NDArray[Any]) -> NDArray[Any]:
    """Say which images are answered right where the answer is chosen from some rows of `texts`."""
    return (rows[(embeddings @ texts[rows].T).argmax(axis=1)] == classes).astype(np.float64)


def weights_of(model: LoadedModel) -> dict[str, torch.Tensor]:
    """Copy the weights of the image tower."""
    return {name: weight.clone() for name, weight in model.torch_model.visual.state_dict().items()}


def rows_of(fold: Path, names: Sequence[str]) -> list[int]:
    """Find the labels that a fold did not see among all.

    Raises:
        LabelsError: one is missing.
    """
    unseen = json.loads(fold.read_text("utf-8"))["unseen_labels"]
    if missing := [name for name in unseen if name not in names]:
        raise LabelsError(f"{fold} names {missing[0]!r}, which is no label; give the labels of the folds")
    return [names.index(name) for name in unseen]


def questions(classes: NDArray[Any], count: int, unseen: list[int]) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """Name what is asked: which images, and the rows of the labels that an answer is chosen from."""
    every, rows = np.arange(count), np.array(unseen, np.intp)
    chosen = np.isin(classes, rows)
    asked = {"all classes": (np.ones_like(chosen), every)}
    if unseen:
        asked |= {
            "seen classes": (~chosen, every),
            "unseen classes": (chosen, every),
            "unseen classes, among themselves": (chosen, rows),
        }
    return asked


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("given", help="open_clip folder")
    parser.add_argument("tuned", help="open_clip folder of the same model, its image tower tuned")
    parser.add_argument("--images", required=True, help="labelled folder or zip, of neither tuning nor gating")
    parser.add_argument("--labels", required=True, type=Path)
    parser.add_argument("--share", type=float, action="append", help=f"of the tuned weights (default: {SHARES})")
    parser.add_argument("--fold", type=Path, help="record of a fold, which names the classes that were not seen")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    return parser.parse_args()


def main() -> None:
    """Average, embed, compare, print."""
    options = parsed()
    with errors_as_one_line():
        labels, dataset = read_label_file(options.labels), open_source(options.images)
        model, tuned = load_model(options.given), load_model(options.tuned)
        classes = label_rows(dataset, labels.names, labels.folders)
        texts, pixels = embed_labels(model, labels), load_pixels(dataset, model.tower.preprocessing).pixels
        before, after = weights_of(model), weights_of(tuned)
        averages = {share: averaged(before, after, share) for share in options.share or SHARES}
        unseen = [] if options.fold is None else rows_of(options.fold, labels.names)
    asked = questions(classes, len(texts), unseen)
    of_given = embed(model, pixels)
    rows, cells = [], []
    for share, weights in averages.items():
        model.torch_model.visual.load_state_dict(weights)
        found = embed(model, pixels)
        row: dict[str, Any] = {"share": share}
        for name, (images, among) in asked.items():
            of = [right(one[images], texts, among, classes[images]) for one in (of_given, found)]
            difference = mean_over_images(100 * (of[1] - of[0]))
            row[name] = {"given": of[0].mean(), "averaged": of[1].mean(), "difference": difference.mean}
            row[name] |= {"low": difference.low, "high": difference.high}
        rows.append(row)
        points = (row[name] for name in asked)
        cells.append(
            (f"{share:g}", *(f"{one['difference']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f})" for one in points))
        )
        print(f"share {share:g}: done", flush=True)
    print(Table(header=("share of the tuned weights", *asked), rows=cells).to_markdown())
    if options.json is not None:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
