"""Writes format_4.lraee, a bundle of format 4 small enough to keep, and format_4.expected.npz, what it answers.

    python tests/runtime/golden/make_format_4.py

Format 4 is that of bundles whose products cannot saturate, so that sessions with default options are exact on every
CPU. Later code must go on loading it as it is; see make_format_1.py for when to run this again.

The tower is random and tiny: 3 blocks of width 32 with 2 heads, 16 x 16 pixels in patches of 4, an embedding of 16,
3 labels, GELU, no logit bias. It has exits after blocks 1 and 2.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from small_bundle import Draw, answers, points_of, write_bundle

BUNDLE = Path(__file__).with_name("format_4.lraee")
EXPECTED = Path(__file__).with_name("format_4.expected.npz")

THRESHOLDS = {"balanced": {1: 0.858, 2: 0.805}, "accurate": {2: 0.624}}
"""By operating point and block."""


def build(folder: Path) -> None:
    """Write the bundle into `folder`, which must not exist."""
    from lraee_exporters.graphs.exit import ExitWeights

    draw = Draw(seed=68)
    tower = draw.tower("golden-format-4", blocks=3, patch=4, activation="gelu", logit_bias=None)
    labels = draw.labels()

    def both() -> ExitWeights:
        norm, fc1, fc2 = draw.head(rows=2, saturation=False)
        return ExitWeights(
            reads="both",
            norm=norm,
            fc1=fc1,
            fc2=fc2,
            logit_bias=None,
            temperature=1.25,
            gate_weights=(6.0, 1.0, -0.01),
            gate_bias=-3.0,
        )

    write_bundle(folder, tower, labels, {1: both(), 2: both()}, points_of(THRESHOLDS), saturation=False)


def main() -> None:
    """Write both files."""
    shutil.rmtree(BUNDLE, ignore_errors=True)
    build(BUNDLE)
    np.savez(EXPECTED, **answers(BUNDLE))


if __name__ == "__main__":
    main()
