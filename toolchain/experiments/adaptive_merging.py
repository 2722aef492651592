"""Measure whether each image gains by a number of merged tokens of its own, at the same FLOPs on average.

    python toolchain/experiments/adaptive_merging.py MODEL --images SRC --labels FILE [--pairs 2 4 6] [--json F]

The float tower answers all images without merging and with each number of pairs merged in every block. One schedule for
all images stands against two rules for each image: the more alike its tokens are in the first blocks, the more pairs
merge; thresholds are set so that each rule spends what the schedule beside it spends. The third rule knows the answers,
and bounds what any rule can gain: an image takes the cheapest schedule that keeps the answer of full depth.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lraee.cli import errors_as_one_line
from lraee.labels.label_file import read_label_file
from lraee_benchmarks.images import open_source
from lraee_benchmarks.render.table import Table
from lraee_calibration_data import label_rows, load_pixels
from lraee_exporters.labels import embed_labels
from lraee_exporters.loading.open_clip_models import load_model
from lraee_exporters.torch_tower.merged_trunk import merging
from lraee_exporters.torch_tower.trunk import blocks_of, choose_machine, has_class_token, run_tower
from lraee_toolchain.parts.schedule_choice import asked_for, normalized
from lraee_toolchain.parts.schedule_search import full_saving

BATCH = 64
LOOKS_AT = (1, 2, 3)
"""Blocks whose tokens are compared; a rule must know before much has been computed."""

Bools = NDArray[np.bool_]


def alike(tokens: torch.Tensor, *, class_token: bool) -> torch.Tensor:
    """Give for each image the mean over half of its tokens of its largest cosine to the other half, (images,)."""
    unit = F.normalize(tokens[:, int(class_token) :].float(), dim=-1)
    return (unit[:, 0::2] @ unit[:, 1::2].transpose(1, 2)).max(dim=-1).values.mean(dim=1)


def answer(
    visual: Any, images: Sequence[torch.Tensor], labels: torch.Tensor, schedule: Sequence[int]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Give the label of each image under a schedule, and how alike its tokens are after the first blocks."""
    best, likeness, machine = [], [], choose_machine("cpu")
    with torch.no_grad(), merging(visual, schedule):
        for batch in images:
            said = run_tower(visual, batch, LOOKS_AT, machine)
            best.append((said.embedding @ labels.T).argmax(dim=1))
            each = [alike(tokens, class_token=has_class_token(visual)) for tokens in said.tokens]
            likeness.append(torch.stack(each, dim=1))
    return torch.cat(best).numpy(), torch.cat(likeness).numpy()


def by_likeness(order: NDArray[np.int64], saved: Sequence[float], wanted: float) -> NDArray[np.int64]:
    """Give each image the place of a schedule, so that as many take the least as the most and `wanted` is saved.

    Args:
        order: (images,) images, those whose tokens are least alike first.
        saved: share of FLOPs that each schedule saves, rising.
        wanted: mean over the images.
    """
    places = np.linspace(0, 1, len(order))
    best: tuple[float, NDArray[np.int64]] | None = None
    for shift in np.linspace(-1, 1, 401):
        levels = np.clip(np.floor((places + shift) * len(saved)), 0, len(saved) - 1).astype(np.int64)
        gap = abs(float(np.take(saved, levels).mean()) - wanted)
        if best is None or gap < best[0]:
            best = gap, levels
    assert best is not None
    taken = np.empty(len(order), np.int64)
    taken[order] = best[1]
    return taken


def main() -> None:
    """Answer under each schedule, assign, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="as for lraee-export")
    parser.add_argument("--images", required=True, help="labelled folder or zip")
    parser.add_argument("--labels", required=True, type=Path)
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 2, 3, 4, 5], help="merged in every block")
    parser.add_argument("--count", type=int, help="images, evenly spaced; all by default")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    with errors_as_one_line():
        model, label_set, dataset = (
            load_model(options.model),
            read_label_file(options.labels),
            open_source(options.images),
        )
        if options.count is not None:
            rows = np.linspace(0, len(dataset) - 1, options.count).astype(int)
            dataset = dataset.subset([int(row) for row in rows])
        classes = label_rows(dataset, label_set.names)
        pixels = load_pixels(dataset, model.tower.preprocessing).pixels
        schedules = [(0,) * model.tower.depth, *(asked_for(model.tower, (pairs,)) for pairs in sorted(options.pairs))]
    labels = torch.from_numpy(embed_labels(model, label_set))
    images = [normalized(pixels[at : at + BATCH], model.tower.preprocessing) for at in range(0, len(pixels), BATCH)]
    visual = model.torch_model.visual
    assert len(blocks_of(visual)) == model.tower.depth
    saved = [full_saving(model.tower, schedule) for schedule in schedules]
    found = [answer(visual, images, labels, schedule) for schedule in schedules]
    right = np.stack([best == classes for best, _ in found])
    same = np.stack([best == found[0][0] for best, _ in found])
    likeness, every = found[0][1], np.arange(len(classes))

    def points(taken: NDArray[np.int64]) -> float:
        return round(100 * float(right[taken, every].mean() - right[0].mean()), 2)

    said = []
    for place in range(1, len(schedules)):
        cells = {"pairs": schedules[place][0], "saved": saved[place], "one for all": points(np.full(len(every), place))}
        for at, block in enumerate(LOOKS_AT):
            taken = by_likeness(likeness[:, at].argsort(kind="stable"), saved, saved[place])
            cells[f"alike after block {block}"] = points(taken)
        said.append(cells)
    cheapest = np.array([max(place for place in range(len(schedules)) if same[place, image]) for image in every])
    bound = {"saved": float(np.take(saved, cheapest).mean()), "points": points(cheapest)}
    header = tuple(said[0])
    rows_of = [
        [
            str(cell) if name == "pairs" else f"{cell:.1%}" if name == "saved" else f"{cell:+g}"
            for name, cell in cells.items()
        ]
        for cells in said
    ]
    print(f"{options.model}: {len(classes)} images, {100 * right[0].mean():.2f} % without merging\n")
    print(Table(header=header, rows=rows_of).to_markdown())
    print(f"\nKnowing the answers: {bound['saved']:.1%} saved at {bound['points']:+g} points.")
    if options.json is not None:
        options.json.write_text(json.dumps({"images": len(classes), "rows": said, "bound": bound}) + "\n", "utf-8")


if __name__ == "__main__":
    main()
