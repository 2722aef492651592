"""What tuning is given: a task that holds for all images, and the images of one split with what they should answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.config.learning import Adaptation
from lraee_toolchain.early_exit.task import Head


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TuningTask:
    """Everything about one tuning that does not depend on the images."""

    labels: NDArray[np.float32]
    """(labels, embed_dim) unit rows; they do not change."""
    logit_scale: float
    mean: tuple[float, float, float]
    """Of each channel, on the scale from 0 to 1."""
    std: tuple[float, float, float]
    exits: tuple[int, ...]
    """Blocks with an exit, from 1, in rising order."""
    options: Adaptation
    seed: int
    schedules: tuple[tuple[int, ...], ...] = ()
    """Merging schedules, pairs in each block; each step draws one of them, or none."""
    heads: Mapping[int, Head] = field(default_factory=dict)
    """What the exit heads start from, by block; empty draws them at random."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Photos:
    """Images to learn from or to judge by."""

    pixels: NDArray[np.uint8]
    """(images, size, size, 3), memory-mapped."""
    classes: NDArray[np.int64] | None
    """(images,) rows of the labels, or None without labels."""
    teacher: NDArray[np.float32]
    """(images, embed_dim) unit rows, memory-mapped: what the tower as given says of the images as they are, or on
    average of several views."""

    def at_most(self, count: int) -> Photos:
        """Select so many images, evenly spaced, so that no class is missed where they lie class by class."""
        every = slice(None, None, max(1, -(-len(self.pixels) // count)))
        classes = None if self.classes is None else self.classes[every]
        return Photos(pixels=self.pixels[every], classes=classes, teacher=self.teacher[every])


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRecord:
    """What one pass over the images came to."""

    epoch: int
    """From 1, counting the passes of the heads alone."""
    trunk: bool
    """Whether the trunk learned in it."""
    images: int
    loss: float
    """Mean over the pass, all terms and weights included."""
    right: tuple[float, ...]
    """Share of held-out images (0 to 1) that each exit, and last full depth, answer as they should."""


def exit_blocks(depth: int, options: Adaptation) -> tuple[int, ...]:
    """Choose the blocks with an exit while the trunk learns.

    >>> exit_blocks(12, Adaptation())
    (6, 7, 8, 9, 10, 11)
    """
    if options.exits == "none":
        return ()
    if options.exits == "all":
        return tuple(range(max(1, depth // 2), depth))
    return options.exits


def exit_words(exits: Sequence[int], right: Sequence[float]) -> str:
    """Write shares of right answers in percent: ``after block 8 50.1, 10 58.4, full depth 65.2 %``."""
    shares = ", ".join(f"{block} {100 * share:.1f}" for block, share in zip(exits, right[:-1], strict=True))
    return f"{f'after block {shares}, ' if shares else ''}full depth {100 * right[-1]:.1f} %"
