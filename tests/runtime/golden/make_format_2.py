"""Writes format_2.lraee, a bundle of format 2 small enough to keep, and format_2.expected.npz, what it answers.

    python tests/runtime/golden/make_format_2.py

Format 2 is that of bundles whose exits read all tokens. This one has both kinds: attention pooling after block 1, and
after block 2 the same behind a convolution of the patches. Later code must go on loading it as it is; see
make_format_1.py for when to run this again.

The tower is random and tiny: 3 blocks of width 32 with 2 heads, 16 x 16 pixels in patches of 4, an embedding of 16,
3 labels, GELU, no logit bias.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from small_bundle import WIDTH, Draw, answers, points_of, write_bundle

if TYPE_CHECKING:
    from lraee_exporters.graphs.exit import ExitWeights

BUNDLE = Path(__file__).with_name("format_2.lraee")
EXPECTED = Path(__file__).with_name("format_2.expected.npz")

THRESHOLDS = {"balanced": {1: 0.9, 2: 0.46}, "accurate": {2: 0.7}}
"""By operating point and block: some images leave at each exit, and no gate is near its threshold."""


def exit_weights(draw: Draw, reads: Literal["attention", "local"]) -> ExitWeights:
    """A head of as many queries as exported ones have."""
    from lraee_exporters.graphs.exit import ExitWeights
    from lraee_exporters.graphs.pooling.token_pool import KERNEL, QUERIES, LocalMixing, TokenPool, pooled_rows

    mixing = None
    if reads == "local":
        kernel = draw.array(WIDTH, 1, KERNEL, KERNEL, scale=1 / KERNEL)
        mixing = LocalMixing(kernel=kernel, bias=draw.array(WIDTH, scale=0.1))
    pool = TokenPool(queries=draw.array(WIDTH, QUERIES, scale=0.3), mixing=mixing)
    norm, fc1, fc2 = draw.head(rows=pooled_rows(QUERIES, class_token=True))
    return ExitWeights(
        reads=reads,
        norm=norm,
        fc1=fc1,
        fc2=fc2,
        logit_bias=None,
        temperature=1.25,
        gate_weights=(6.0, 1.0, -0.01),
        gate_bias=-3.0,
        pool=pool,
    )


def build(folder: Path) -> None:
    """Write the bundle into `folder`, which must not exist."""
    draw = Draw(seed=0)
    tower = draw.tower("golden-format-2", blocks=3, patch=4, activation="gelu", logit_bias=None)
    labels = draw.labels()
    exits = {1: exit_weights(draw, "attention"), 2: exit_weights(draw, "local")}
    write_bundle(folder, tower, labels, exits, points_of(THRESHOLDS))


def main() -> None:
    """Write both files."""
    shutil.rmtree(BUNDLE, ignore_errors=True)
    build(BUNDLE)
    np.savez(EXPECTED, **answers(BUNDLE))


if __name__ == "__main__":
    main()
