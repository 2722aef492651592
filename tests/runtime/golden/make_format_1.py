"""Writes format_1.lraee, a bundle of format 1 small enough to keep, and format_1.expected.npz, what it answers.

    python tests/runtime/golden/make_format_1.py

Later code must go on loading the bundle as it is, so a change of the format is no reason to run this: such a change
adds a generator of its own. Run it again only when the same format is meant to give other numbers. The kept bundle has
operators of set 23, which need ONNX Runtime 1.25; written today it has those of set 20.

The tower is random and tiny: 2 blocks of width 32 with 2 heads, 16 x 16 pixels in patches of 8, an embedding of 16,
3 labels, an exit behind block 1. It takes what the reference bundle does not have: QuickGELU, a logit bias and
thresholds by class.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from small_bundle import Draw, answers, write_bundle

BUNDLE = Path(__file__).with_name("format_1.lraee")
EXPECTED = Path(__file__).with_name("format_1.expected.npz")


def build(folder: Path) -> None:
    """Write the bundle into `folder`, which must not exist."""
    from lraee.bundle.manifest import OperatingPoint, Threshold
    from lraee_exporters.graphs.exit import ExitWeights

    draw = Draw(seed=0)
    tower = draw.tower("golden-format-1", blocks=2, patch=8, activation="quick_gelu", logit_bias=-2.0)
    labels = draw.labels()
    norm, fc1, fc2 = draw.head(rows=2)
    weights = ExitWeights(
        reads="both",
        norm=norm,
        fc1=fc1,
        fc2=fc2,
        logit_bias=tower.logit_bias,
        temperature=1.25,
        gate_weights=(6.0, 1.0, -0.01),
        gate_bias=-3.0,
    )
    threshold = Threshold(block=1, value=0.54, per_class=None)
    by_class = Threshold(block=1, value=1.0, per_class=(0.7, 1.0, 0.6))
    points = tuple(
        OperatingPoint(name=name, thresholds=(one,), flops_saved=0.2, accuracy=None, full_accuracy=None)
        for name, one in (("balanced", threshold), ("by_class", by_class))
    )
    write_bundle(folder, tower, labels, {1: weights}, points)


def main() -> None:
    """Write both files."""
    shutil.rmtree(BUNDLE, ignore_errors=True)
    build(BUNDLE)
    np.savez(EXPECTED, **answers(BUNDLE))


if __name__ == "__main__":
    main()
