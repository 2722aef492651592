"""Writes format_3.lraee, a bundle of format 3 small enough to keep, and format_3.expected.npz, what it answers.

    python tests/runtime/golden/make_format_3.py

Format 3 is that of bundles that merge tokens. This one has an exit after block 2 where nothing is merged, and under the
schedule ``merge`` exits after blocks 2 and 3: one reads mean and class token, one all tokens. Later code must go on
loading it as it is; see make_format_1.py for when to run this again.

The tower is random and tiny: 4 blocks of width 32 with 2 heads, 16 x 16 pixels in patches of 4, an embedding of 16,
3 labels, GELU, no logit bias. The schedule takes its 17 tokens to 15, 12 and 9.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from make_format_2 import exit_weights as attention_weights
from small_bundle import Draw, answers, points_of, write_bundle

BUNDLE = Path(__file__).with_name("format_3.lraee")
EXPECTED = Path(__file__).with_name("format_3.expected.npz")

MERGED = (2, 3, 3, 0)
THRESHOLDS = {"balanced": {2: 0.757, 3: 0.893}, "accurate": {2: 0.768}}
"""By operating point and block."""

SCHEDULES = {"balanced": "merge"}
"""Of the operating points that merge tokens."""


def build(folder: Path) -> None:
    """Write the bundle into `folder`, which must not exist."""
    from lraee_exporters.graphs.exit import ExitWeights

    draw = Draw(seed=31)
    tower = draw.tower("golden-format-3", blocks=4, patch=4, activation="gelu", logit_bias=None)
    labels = draw.labels()

    def both() -> ExitWeights:
        norm, fc1, fc2 = draw.head(rows=2)
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

    exits = {2: both()}
    schedules = {"merge": (MERGED, {2: both(), 3: attention_weights(draw, "attention")})}
    write_bundle(folder, tower, labels, exits, points_of(THRESHOLDS, SCHEDULES), schedules)


def main() -> None:
    """Write both files."""
    shutil.rmtree(BUNDLE, ignore_errors=True)
    build(BUNDLE)
    np.savez(EXPECTED, **answers(BUNDLE))


if __name__ == "__main__":
    main()
