"""Holds tokens that stand for several: where a schedule merges tokens, their sizes travel with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort

from lraee.arrays import FloatArray


class SizedTokens:
    """Tokens and how many each of them stands for; rows are selected, counted and copied as of one array."""

    __slots__ = ("sizes", "values")

    def __init__(self, values: FloatArray, sizes: FloatArray) -> None:
        """Put them together.

        Args:
            values: (batch, tokens, width) float32, or (tokens, width) of one image.
            sizes: (batch, tokens, 1) float32, or (tokens, 1).
        """
        self.values, self.sizes = values, sizes

    def __len__(self) -> int:
        """Count the images."""
        return len(self.values)

    def __getitem__(self, rows: Any) -> SizedTokens:
        """Select images, or one of them."""
        return SizedTokens(self.values[rows], self.sizes[rows])

    def copy(self) -> SizedTokens:
        """Copy both, so that they outlive the next part that runs."""
        return SizedTokens(self.values.copy(), self.sizes.copy())


Tokens: TypeAlias = FloatArray | SizedTokens
"""What blocks hand on: tokens alone, or from the first block that merges on with their sizes."""


def stacked(images: Sequence[Tokens]) -> Tokens:
    """Make a batch of the tokens of single images, all of one kind."""
    if isinstance(images[0], SizedTokens):
        sized = [one for one in images if isinstance(one, SizedTokens)]
        return SizedTokens(np.stack([one.values for one in sized]), np.stack([one.sizes for one in sized]))
    return np.stack([one for one in images if not isinstance(one, SizedTokens)])


def feed_of(tokens: Tokens) -> dict[str, FloatArray]:
    """Give the inputs of a part that reads these tokens."""
    if isinstance(tokens, SizedTokens):
        return {"tokens": tokens.values, "sizes": tokens.sizes}
    return {"tokens": tokens}


def run_sized_block(session: ort.InferenceSession, tokens: Tokens, *, merged: bool) -> Tokens:
    """Run a block that merges tokens, or whose tokens stand for several.

    Args:
        session: of the block.
        tokens: that it reads.
        merged: whether it merges some, so that it gives their sizes too.
    """
    if merged:
        return SizedTokens(*session.run(["tokens_out", "sizes_out"], feed_of(tokens)))
    after: FloatArray = session.run(["tokens_out"], feed_of(tokens))[0]
    return SizedTokens(after, tokens.sizes) if isinstance(tokens, SizedTokens) else after
