"""Compare bundles that differ by their seed with other bundles, all on the same labelled images.

    python benchmarks/experiments/seeds.py SEED-0.lraee SEED-1.lraee ... --images SOURCE --to FP32.lraee [--to ...]
        [--policy adaptive] [--json F]

Every bundle before ``--images`` runs with ``--policy``, those after ``--to`` at full depth; all have the same labels.
A difference is taken image by image: the mean over the seeds of right answers, less what the other bundle got right.
Its 95 % interval is bootstrapped over the images. The bundle's own full depth is compared too. FLOPs saved are against
full depth without merging.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.bundle.strict_json import encode
from lraee.cli import errors_as_one_line
from lraee.policies import Policy
from lraee.policies.spec import parse_policy
from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.images import open_source
from lraee_benchmarks.render.table import Table
from lraee_calibration_data import label_rows, load_pixels

BATCH = 64


class Images:
    """The labelled images, and what bundles answer for them."""

    def __init__(self, source: str) -> None:
        """Open them; nothing is read yet."""
        self._dataset = open_source(source)

    def answered(self, bundle: str, *policies: Policy) -> list[tuple[NDArray[np.float64], float]]:
        """Run a bundle; for each policy (images,) 1 where it is right, and the share of FLOPs saved, 0 to 1."""
        model = lraee.load(bundle)
        classes = label_rows(self._dataset, model.labels)
        pixels = load_pixels(self._dataset, model.manifest.preprocessing).pixels
        found = []
        for policy in policies:
            right, flops = [], []
            for at in range(0, len(pixels), BATCH):
                answers = model.run_pixels(pixels[at : at + BATCH], policy=policy)
                right.append(answers.probabilities.argmax(axis=1) == classes[at : at + BATCH])
                flops.append(model.flops_of_run(answers))
            saved = 1 - float(np.concatenate(flops).mean()) / model.manifest.full_flops
            found.append((np.concatenate(right).astype(np.float64), saved))
        return found


def compared(images: Images, seeds: Sequence[str], others: Sequence[str], policy: Policy) -> dict[str, Any]:
    """Run everything; accuracies, savings and differences are shares, 0 to 1."""
    of_seeds = [images.answered(bundle, policy, lraee.Full()) for bundle in seeds]
    early = np.mean([one[0][0] for one in of_seeds], axis=0)
    towers = {"own full depth": np.mean([one[1][0] for one in of_seeds], axis=0)}
    towers |= {Path(other).name: images.answered(other, lraee.Full())[0][0] for other in others}
    rows = []
    for name, right in towers.items():
        difference = dataclasses.asdict(mean_over_images(early - right))
        rows.append({"to": name, "accuracy": float(right.mean()), "difference": difference})
    return {
        "bundles": [Path(bundle).name for bundle in seeds],
        "images": len(early),
        "accuracy": float(early.mean()),
        "per_seed": [float(one[0][0].mean()) for one in of_seeds],
        "flops_saved": [one[0][1] for one in of_seeds],
        "rows": rows,
    }


def table(found: dict[str, Any]) -> Table:
    """Write a row for each tower that is compared with."""
    saved = 100 * np.array(found["flops_saved"])
    rows = [
        [
            row["to"],
            f"{100 * row['accuracy']:.2f} %",
            f"{100 * found['accuracy']:.2f} %",
            f"{saved.mean():.1f} ± {saved.std():.1f} %",
            "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * row["difference"][key] for key in ("mean", "low", "high"))),
        ]
        for row in found["rows"]
    ]
    return Table(header=["compared with", "its top-1", "top-1", "FLOPs saved", "points"], rows=rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--images", required=True, help="labelled folder or zip")
    parser.add_argument("--to", action="append", default=[], help="bundle that runs at full depth; may be repeated")
    parser.add_argument("--policy", default="adaptive")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    with errors_as_one_line():
        found = compared(Images(given.images), given.bundles, given.to, parse_policy(given.policy))
    print(f"{len(given.bundles)} bundles, {given.policy}, {found['images']:,} images")
    print(table(found).to_markdown())
    if given.json is not None:
        found |= {"policy": given.policy, "created": datetime.now(UTC).isoformat(timespec="seconds")}
        found["device"] = encode(describe_device())
        given.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
