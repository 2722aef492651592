"""Runs a batch as in the paper's figure: blocks one after the other, with gates between them.

Images that leave take their answer with them; the rest is compacted, so later blocks only compute what is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from lraee.arrays import FloatArray
from lraee.engine.sized_tokens import Tokens
from lraee.policies.base import Route, Verdict, is_anytime, schedule_of

T = TypeVar("T", FloatArray, Tokens)
"""What blocks hand on; where nothing merges tokens, arrays."""


class Tower(Protocol[T]):
    """Gives the parts of an image tower as functions; `lraee.engine.parts.Parts` runs them with ONNX Runtime."""

    depth: int

    def stem(self, pixels: NDArray[np.uint8]) -> T:
        """Turn pixels (batch, size, size, 3) uint8 into tokens (batch, tokens, width)."""
        ...

    def block(self, number: int, tokens: T) -> T:
        """Run a block, (batch, tokens, width) to the same; the last may give (batch, 1, width), the class token."""
        ...

    def has_exit(self, number: int) -> bool:
        """Tell whether there is an exit after block `number`."""
        ...

    def exit(self, number: int, tokens: T, rows: NDArray[np.intp]) -> Verdict:
        """Evaluate head and gate of the exit after block `number`."""
        ...

    def tail(self, tokens: T) -> tuple[FloatArray, FloatArray]:
        """Give the embedding (batch, embed_dim) and probabilities (batch, labels) at full depth."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Holds what the images of a batch got, in their order."""

    embedding: FloatArray
    """(batch, embed_dim) float32, unit rows."""
    probabilities: FloatArray
    """(batch, labels) float32; see `lraee.bundle.manifest.Manifest.probabilities`."""
    exit_block: NDArray[np.int32]
    """(batch,) int32, counted from 1: block after which the image left; the depth where it ran to the end."""
    blocks_run: NDArray[np.int32]
    """(batch,) int32: `exit_block`, or more where a route ended the run between two exits."""
    early: NDArray[np.bool_]
    """(batch,) bool, whether the image left through an exit."""
    gate: FloatArray
    """(batch,) float32: the gate's value where the image left, NaN at full depth."""
    visited: tuple[tuple[int, ...], ...]
    """For each image, the blocks after which an exit was evaluated for it."""
    schedule: str | None = None
    """Name of the merging schedule under which it ran; None where nothing was merged."""


def joined(answers: Sequence[Answers]) -> Answers:
    """Join the answers of several batches, at least one, to those of one batch."""
    return Answers(
        embedding=np.concatenate([one.embedding for one in answers]),
        probabilities=np.concatenate([one.probabilities for one in answers]),
        exit_block=np.concatenate([one.exit_block for one in answers]),
        blocks_run=np.concatenate([one.blocks_run for one in answers]),
        early=np.concatenate([one.early for one in answers]),
        gate=np.concatenate([one.gate for one in answers]),
        visited=tuple(visited for one in answers for visited in one.visited),
        schedule=answers[0].schedule,
    )


def run(
    tower: Tower[T], pixels: NDArray[np.uint8], route: Route, *, on_part: Callable[[str, int], None] | None = None
) -> Answers:
    """Run a batch until every image has an answer.

    Args:
        tower: the parts.
        pixels: (batch, size, size, 3) uint8.
        route: decides which images leave after which block.
        on_part: called after each part with its name and the number of images it ran for.

    Returns:
        One answer for each image, in the order of `pixels`.
    """
    count = len(pixels)
    rows = np.arange(count)
    answers = _Collector(count, schedule_of(route))
    noted = _listener(route, on_part)
    anytime = route if is_anytime(route) else None

    tokens = tower.stem(pixels)
    noted("stem", count)
    for block in range(1, tower.depth + 1):
        tokens = tower.block(block, tokens)
        noted(f"block_{block:02d}", len(rows))
        if anytime is not None and anytime.stops(block):
            answers.fall_back(block, rows)
            return answers.done()
        if not (tower.has_exit(block) and route.visits(block)):
            continue
        verdict = tower.exit(block, tokens, rows)
        noted(f"exit_{block:02d}", len(rows))
        answers.visit(block, rows, verdict)
        leaving = route.leaves(block, verdict)
        if not leaving.any():
            continue
        answers.leave(block, rows[leaving], verdict, leaving)
        if leaving.all():
            return answers.done()
        rows, tokens = rows[~leaving], tokens[~leaving]
    embedding, probabilities = tower.tail(tokens)
    noted("tail", len(rows))
    answers.finish(tower.depth, rows, embedding, probabilities)
    return answers.done()


def _listener(route: Route, on_part: Callable[[str, int], None] | None) -> Callable[[str, int], None]:
    """Give the function that is told of each part: the caller's, that of an anytime route, or both."""
    if not is_anytime(route):
        return on_part or (lambda part, images: None)
    if on_part is None:
        return route.ran
    told, ran = on_part, route.ran

    def both(part: str, images: int) -> None:
        told(part, images)
        ran(part, images)

    return both


class _Collector:
    """Puts answers back into the order of the batch."""

    def __init__(self, count: int, schedule: str | None) -> None:
        self.schedule = schedule
        self.exit_block = np.zeros(count, np.int32)
        self.early = np.zeros(count, np.bool_)
        self.gate = np.full(count, np.nan, np.float32)
        self.visited: list[tuple[int, ...]] = [()] * count
        self.blocks_run = np.zeros(count, np.int32)
        self.latest: tuple[int, Verdict] | None = None
        self.embedding: FloatArray | None = None
        self.probabilities: FloatArray | None = None

    def visit(self, block: int, rows: NDArray[np.intp], verdict: Verdict) -> None:
        self.latest = (block, verdict)
        for row in rows:
            self.visited[row] += (block,)

    def leave(self, block: int, rows: NDArray[np.intp], verdict: Verdict, leaving: NDArray[np.bool_]) -> None:
        self.early[rows] = True
        self.gate[rows] = verdict.gate[leaving]
        self.finish(block, rows, verdict.embedding[leaving], verdict.probabilities[leaving])

    def fall_back(self, block: int, rows: NDArray[np.intp]) -> None:
        if self.latest is None:
            raise AssertionError("a route stopped before any exit was visited")
        exit_block, verdict = self.latest
        self.leave(exit_block, rows, verdict, np.isin(verdict.rows, rows))
        self.blocks_run[rows] = block

    def finish(self, block: int, rows: NDArray[np.intp], embedding: FloatArray, probabilities: FloatArray) -> None:
        if self.embedding is None or self.probabilities is None:
            count = len(self.exit_block)
            self.embedding = np.empty((count, embedding.shape[1]), np.float32)
            self.probabilities = np.empty((count, probabilities.shape[1]), np.float32)
        self.exit_block[rows] = self.blocks_run[rows] = block
        self.embedding[rows] = embedding
        self.probabilities[rows] = probabilities

    def done(self) -> Answers:
        if self.embedding is None or self.probabilities is None:
            raise AssertionError("a batch ended without any answer")
        return Answers(
            embedding=self.embedding,
            probabilities=self.probabilities,
            exit_block=self.exit_block,
            blocks_run=self.blocks_run,
            early=self.early,
            gate=self.gate,
            visited=tuple(self.visited),
            schedule=self.schedule,
        )
