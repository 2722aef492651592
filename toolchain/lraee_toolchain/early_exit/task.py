"""What fitting exits is given: a task for everything that holds for all images, and material of one split of them.

Heads stand here too, since a task may come with some that learned already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lraee_exporters.graphs.exit import HeadInput
from lraee_exporters.graphs.layers import AnyLinear
from lraee_exporters.graphs.pooling.token_pool import TokenPool
from lraee_exporters.tower import LayerNorm
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.rows import RowArray, Rows, largest

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedCosts:
    """FLOPs of one image where a schedule merges tokens, including the similarity to the labels."""

    blocks: tuple[int, ...]
    """Of each block; the last computes the class token alone where there is one."""
    exits: tuple[Mapping[HeadInput, int], ...]
    """Of an exit after each block, by what its head reads."""
    tail: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """FLOPs of one image, including the similarity to the labels."""

    stem: int
    block: int
    """Of one block that computes all tokens."""
    last: int
    """Of the last block, which computes keys and values of all tokens and the class token alone after them."""
    exits: Mapping[HeadInput, int]
    """Of one exit, by what its head reads."""
    tail: int
    depth: int
    """Number of blocks of the tower."""
    merged: MergedCosts | None = None
    """Of the parts that run under a merging schedule; None where nothing is merged."""

    @property
    def full(self) -> int:
        """FLOPs of stem, all blocks and tail with all tokens, without any exit: what savings count against."""
        return self.stem + self.block * (self.depth - 1) + self.last + self.tail

    @property
    def end(self) -> int:
        """FLOPs of an image that leaves nowhere, without any exit."""
        return self.full if self.merged is None else self.stem + sum(self.merged.blocks) + self.merged.tail

    def up_to(self, block: int) -> int:
        """Sum the FLOPs of the stem and the first blocks, without any exit."""
        return self.stem + (self.block * block if self.merged is None else sum(self.merged.blocks[:block]))

    def exit(self, reads: HeadInput, block: int) -> int:
        """Give the FLOPs of an exit after a block."""
        return self.exits[reads] if self.merged is None else self.merged.exits[block - 1][reads]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Head:
    """A trained head, in float32 or INT8."""

    reads: HeadInput
    norm: LayerNorm
    fc1: AnyLinear
    fc2: AnyLinear
    pool: TokenPool | None = None
    """Of a head that reads tokens, else None."""
    bottleneck: AnyLinear | None = None
    """Stands before `fc1` where the first layer has a low rank, else None."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExitTask:
    """The tower, labels and options that exits are fitted for: the same for heads, gates, thresholds and points."""

    labels: FloatArray
    """(labels, embed_dim) unit text embeddings."""
    logit_scale: float
    """Factor on the cosine of image and label."""
    costs: Costs
    config: ExportConfig
    """Exits, budget and training options."""
    int8: bool = True
    """Whether heads are quantized, as the tower is."""
    seed: int = 0
    """Seed of the heads' training."""
    is_random: bool = False
    """Whether the tower's weights are random; no exit can then be said to pay."""
    learned: Mapping[int, Head] = field(default_factory=dict)
    """Heads that read all tokens and learned with the trunk, by block; they are not trained anew."""
    kinds: Mapping[int, HeadInput] = field(default_factory=dict)
    """What the head after each block reads, where ``reads=auto`` has chosen it before: nothing else is tried."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """The cached inputs of one split, read some rows at a time: they may be larger than memory."""

    features: Features
    """Features of the tower that will run (INT8)."""
    teacher: Teacher
    """Answers of the float tower, which teach."""
    classes: NDArray[np.int64] | None
    """(images,) label index, or None without labels."""
    unmerged: RowArray | None = None
    """(images, labels) float32 probabilities at full depth with all tokens, where the features are of merged ones."""
    forms: int = 1
    """Forms that each image is there in: all images in one form, then all in the next. Heads learn from one form of
    each image in each pass, so that merging schedules make no pass longer."""

    @property
    def wanted(self) -> NDArray[np.int64]:
        """(images,) int64 the true label, or without labels the one that the float tower predicts."""
        return largest(self.teacher.probabilities) if self.classes is None else self.classes

    def rows(self, index: NDArray[np.int64]) -> Material:
        """Select images by their index."""
        classes = None if self.classes is None else self.classes[index]
        unmerged = None if self.unmerged is None else Rows.of(self.unmerged).select(index)
        return Material(
            features=self.features.rows(index), teacher=self.teacher.rows(index), classes=classes, unmerged=unmerged
        )

    def joined(self, other: Material) -> Material:
        """Put the images of another split, or of other parts, after these; nothing is read or copied."""
        classes = None
        if self.classes is not None and other.classes is not None:
            classes = np.concatenate([self.classes, other.classes])
        unmerged = None
        if self.unmerged is not None and other.unmerged is not None:
            unmerged = Rows.of(self.unmerged).joined(other.unmerged)
        return Material(
            features=self.features.joined(other.features),
            teacher=self.teacher.joined(other.teacher),
            classes=classes,
            unmerged=unmerged,
        )

    def without_tokens(self) -> Material:
        """The same images for heads that read no tokens."""
        return replace(self, features=replace(self.features, tokens=None))

    def good(self, probabilities: FloatArray, rows: slice = slice(None)) -> NDArray[np.bool_]:
        """Whether each answer is right, or without labels agrees with the float tower.

        Args:
            probabilities: (images, labels) of the images `rows`.
            rows: all by default.
        """
        wanted = self.classes
        if wanted is None:
            return np.asarray(probabilities.argmax(axis=1) == largest(self.teacher.probabilities[rows]))
        return np.asarray(probabilities.argmax(axis=1) == wanted[rows])

    @property
    def full_good(self) -> NDArray[np.bool_]:
        """(images,) `good` of the tower's own answer at full depth with all tokens."""
        probabilities = self.features.probabilities if self.unmerged is None else self.unmerged
        return np.asarray(largest(probabilities) == self.wanted)

    @property
    def merged_good(self) -> NDArray[np.bool_] | None:
        """(images,) `good` of the answer at full depth with merged tokens; None where nothing is merged."""
        return None if self.unmerged is None else np.asarray(largest(self.features.probabilities) == self.wanted)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route:
    """The parts that images run, without merging or under one schedule, and what exits of these parts are fitted on."""

    costs: Costs
    heads: Material
    """Images that heads learn from."""
    gating: Material
    """Images for temperatures, gates, thresholds and the choice of exits."""
    promise: Material | None = None
    """Images that a promised point is tested on, if one was asked for."""
    schedule: str | None = None
    """Name of the merging schedule; None merges nothing."""
