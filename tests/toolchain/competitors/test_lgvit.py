"""LGViT's exits: which heads stand where, and that heads at hand are not trained again."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from lraee_exporters.graphs.exit import HEAD_INPUTS
from lraee_toolchain.competitors.lgvit import lgvit_exits, lgvit_reads
from lraee_toolchain.config.learning import HeadTraining
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.exits import train_exits
from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.task import Costs, ExitTask, Material
from lraee_toolchain.early_exit.token_heads.sources import HalfArray, HalfTokens, Rows, normed_tokens

WIDTH, PATCHES, LABELS, DEPTH = 8, 9, 3, 5
BLOCKS = (1, 2, 3, 4)
COSTS = Costs(stem=1, block=100, last=100, exits=dict.fromkeys(HEAD_INPUTS, 1), tail=1, depth=DEPTH)


@dataclass(eq=False)
class Kept:
    """Tokens in memory, (blocks, images, tokens, width), and the blocks that were asked for."""

    normed: HalfArray
    asked: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return self.normed.shape[1]

    def tokens(self, rows: Rows, blocks):  # type: ignore[no-untyped-def]  # as `TokenSource.tokens`
        """Yield the rows of each block."""
        for block in blocks:
            self.asked.append(block)
            yield HalfTokens(self.normed[block - 1, rows])


def unit(values: np.ndarray) -> np.ndarray:
    """Rows of unit length."""
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


def material(seed: int, images: int) -> Material:
    """Tokens whose mean shows the class."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, LABELS, images)
    centres = np.random.default_rng(0).normal(size=(LABELS, WIDTH))
    shape = (DEPTH, images, 1 + PATCHES, WIDTH)
    tokens = (centres[classes][None, :, None] + generator.normal(size=shape)).astype(np.float32)
    embedding = unit(centres[classes] + 0.1 * generator.normal(size=(images, WIDTH)))
    probabilities = unit(np.abs(embedding @ unit(centres).T))
    features = Features(
        np.moveaxis(tokens[:, :, 1:].mean(axis=2), 0, 1),
        np.moveaxis(tokens[:, :, 0], 0, 1),
        np.ones((images, DEPTH), np.float32),
        embedding,
        probabilities,
        tokens=Kept(normed_tokens(tokens)),
    )
    return Material(features=features, teacher=Teacher(embedding, probabilities), classes=classes)


@pytest.fixture(scope="module")
def task() -> ExitTask:
    """One pass."""
    config = ExportConfig(model="reference", out=Path("unused.lraee"), heads=HeadTraining(epochs=1, batch_size=16))
    labels = unit(np.random.default_rng(0).normal(size=(LABELS, WIDTH)))
    return ExitTask(labels=labels, logit_scale=10.0, costs=COSTS, config=config, int8=True, seed=0)


def test_shallow_exits_mix_neighbours_and_deep_ones_attend() -> None:
    """Half of the blocks each; of an odd number the middle one is shallow."""
    assert set(lgvit_reads([8]).values()) == {"local"}
    assert list(lgvit_reads([6, 4, 5]).items()) == [(4, "local"), (5, "local"), (6, "attention")]


def test_heads_at_hand_are_taken_and_the_others_trained(task: ExitTask) -> None:
    """As if all had been trained here: a head depends on its own block and the seed alone."""
    heads, gating = material(1, 48), material(2, 32)
    attention = train_exits(task, heads, gating, BLOCKS, reads="attention")
    source = heads.features.tokens
    assert isinstance(source, Kept)
    source.asked.clear()
    exits = lgvit_exits(task, heads, gating, BLOCKS, attention)
    assert [(there.block, there.head.reads) for there in exits] == list(lgvit_reads(BLOCKS).items())
    assert exits[2:] == attention[2:]
    assert set(source.asked) == {1, 2}
    whole = lgvit_exits(task, heads, gating, BLOCKS)
    assert [there.accuracy for there in whole] == [there.accuracy for there in exits]
    assert all(
        np.array_equal(one.head.pool.queries, other.head.pool.queries)
        for one, other in zip(whole, exits, strict=True)
        if one.head.pool is not None and other.head.pool is not None
    )
