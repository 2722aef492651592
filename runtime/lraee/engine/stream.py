"""Continuous batching: runs a long stream of images in full batches, although images leave at any depth.

A batch that loses images at every exit ends nearly empty, and a nearly empty batch uses the cores badly. Here, images
that do not exit queue after that block until a full batch is waiting; new images take the places of those that left.
After each batch, the next one is

1. the deepest queue that holds a full batch; else
2. the queue of the image that has waited longest, full or not, if it must be answered now (`max_lag`); else
3. new images from the input; else, at its end,
4. the shallowest queue that is not empty, so that its images join those of deeper queues.

Differs from `orchestrator.run` in that images of one batch have visited different exits, so each has its own route.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lraee.arrays import FloatArray
from lraee.checks import check_count, is_count
from lraee.engine.orchestrator import Answers, Tower
from lraee.engine.sized_tokens import Tokens, stacked
from lraee.errors import ImageError
from lraee.policies.base import Route, Verdict, schedule_of

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class _Traveller:
    """Holds the state of one image between its batches."""

    position: int
    route: Route
    visited: tuple[int, ...] = ()
    tokens: Tokens | None = None
    """(tokens, width) while it waits in a queue."""


def check_stream_settings(batch_size: int, max_lag: int) -> None:
    """Refuse a batch that could never be full.

    Raises:
        ImageError: the lag is not a whole number from 1 on, or the batch size not one from 1 to the lag.
    """
    check_count("max_lag", max_lag, ImageError)
    if not is_count(batch_size, 1, max_lag):
        raise ImageError(f"batch_size is {batch_size}, wanted 1 to max_lag, which is {max_lag}")


def run_stream(
    tower: Tower[Tokens],
    pixels: Iterable[NDArray[np.uint8] | None],
    bind: Callable[[], Route],
    *,
    batch_size: int,
    max_lag: int,
    on_part: Callable[[str, int], None] | None = None,
) -> Iterator[tuple[int, Answers]]:
    """Run images until the input ends; each answer is yielded as soon as it is known.

    At most `max_lag` images lie between the first without an answer and the last that was read. At most
    ``batch_size - 1`` of them wait after each exit, each with tokens of ``4 * tokens * width`` bytes, and one batch
    runs. Between two answers no shared buffer is in use, so the same thread may make other calls.

    Args:
        tower: the parts.
        pixels: (size, size, 3) uint8 each; taken `batch_size` at a time, when they are needed. None is an image that
            could not be read: it has a place and gets no answer.
        bind: makes the route of one image.
        batch_size: images that run together.
        max_lag: how many images may be read from an image on before it is answered; at least `batch_size`.
        on_part: called after each part with its name and the number of images it ran for.

    Yields:
        Place of the image in the input, counted from 0, and its answer as a batch of one.
    """
    stations = _Stations(tower, batch_size, on_part or (lambda part, images: None))
    waiting, source, read = stations.waiting, enumerate(pixels), 0
    while True:
        block = next((block for block in reversed(waiting) if len(waiting[block]) >= batch_size), None)
        if block is None:
            oldest = min(((one.position, at) for at, queue in waiting.items() for one in queue), default=(read, 0))
            if read + batch_size - oldest[0] > max_lag:
                block = oldest[1]
        if block is None:
            if batch := list(islice(source, batch_size)):
                read += len(batch)
                there = [(place, image) for place, image in batch if image is not None]
                if there:
                    yield from stations.enter(
                        [_Traveller(place, bind()) for place, _ in there], [image for _, image in there]
                    )
                continue
            block = next((block for block, queue in waiting.items() if queue), None)
        if block is None:
            return
        yield from stations.leave_for(block)


def in_order(answers: Iterable[tuple[int, T]], missing: set[int] | None = None) -> Iterator[T]:
    """Yield answers in the order of the images, and hold back those that come early.

    >>> list(in_order([(1, "b"), (0, "a"), (3, "d")], missing={2}))
    ['a', 'b', 'd']

    Args:
        answers: place of each, counted from 0, and the answer itself.
        missing: places that get no answer. It may grow while answers come, if a place is in it before any later one is
            answered; places that were passed are taken out.
    """
    ready: dict[int, T] = {}
    missing = set() if missing is None else missing
    due = 0
    for position, answer in answers:
        ready[position] = answer
        while due in ready or due in missing:
            if due in missing:
                missing.remove(due)
            else:
                yield ready.pop(due)
            due += 1


class _Stations:
    """Holds the queue of images after each exit, and runs batches from queue to queue."""

    def __init__(self, tower: Tower[Tokens], batch_size: int, noted: Callable[[str, int], None]) -> None:
        self.waiting: dict[int, deque[_Traveller]] = {
            block: deque() for block in range(1, tower.depth + 1) if tower.has_exit(block)
        }
        self._tower = tower
        self._batch_size = batch_size
        self._noted = noted

    def enter(self, images: list[_Traveller], pixels: list[NDArray[np.uint8]]) -> list[tuple[int, Answers]]:
        """Run new images to the first exit that one of them visits; gives the answers of those that left."""
        tokens = self._tower.stem(np.stack(pixels))
        self._noted("stem", len(images))
        return self._travel(0, images, tokens)

    def leave_for(self, block: int) -> list[tuple[int, Answers]]:
        """Run a batch that waits after `block` to the next exit; gives the answers of those that left."""
        queue = self.waiting[block]
        images = [queue.popleft() for _ in range(min(len(queue), self._batch_size))]
        tokens = stacked([image.tokens for image in images if image.tokens is not None])
        for image in images:
            image.tokens = None
        return self._travel(block, images, tokens)

    def _travel(self, start: int, images: list[_Traveller], tokens: Tokens) -> list[tuple[int, Answers]]:
        for block in range(start + 1, self._tower.depth + 1):
            tokens = self._tower.block(block, tokens)
            self._noted(f"block_{block:02d}", len(images))
            asking = [block in self.waiting and image.route.visits(block) for image in images]
            if not any(asking):
                continue
            left = self._ask(block, images, tokens, np.array(asking))
            staying = [row for row, image in enumerate(images) if image.position not in left]
            if len(staying) == self._batch_size and not self.waiting[block]:
                continue  # a full batch need not wait
            for row in staying:
                images[row].tokens = tokens[row].copy()
                self.waiting[block].append(images[row])
            return list(left.items())
        embedding, probabilities = self._tower.tail(tokens)
        self._noted("tail", len(images))
        return [
            (image.position, _answer(image, self._tower.depth, embedding[row], probabilities[row], None))
            for row, image in enumerate(images)
        ]

    def _ask(
        self, block: int, images: list[_Traveller], tokens: Tokens, asking: NDArray[np.bool_]
    ) -> dict[int, Answers]:
        """Evaluate the exit for the images that visit it; gives the answers of those that leave, by position."""
        rows = np.flatnonzero(asking)
        verdict = self._tower.exit(block, tokens if asking.all() else tokens[asking], rows)
        self._noted(f"exit_{block:02d}", len(rows))
        left: dict[int, Answers] = {}
        for at, row in enumerate(rows):
            image = images[row]
            image.visited += (block,)
            if image.route.leaves(block, _alone(verdict, at))[0]:
                left[image.position] = _answer(
                    image, block, verdict.embedding[at], verdict.probabilities[at], verdict.gate[at]
                )
        return left


def _alone(verdict: Verdict, at: int) -> Verdict:
    """Cut the verdict on one image out of that on a batch."""
    one = slice(at, at + 1)
    return Verdict(
        verdict.embedding[one],
        verdict.probabilities[one],
        verdict.features[one],
        verdict.gate[one],
        np.zeros(1, np.intp),
    )


def _answer(
    image: _Traveller, block: int, embedding: FloatArray, probabilities: FloatArray, gate: np.float32 | None
) -> Answers:
    """Copy the answer of one image, so that it does not keep the arrays of a whole batch alive.

    Args:
        image: that is answered.
        block: after which it left, or the depth of the tower.
        embedding: (embed_dim,) float32.
        probabilities: (labels,) float32.
        gate: of the exit through which it left; None at full depth.
    """
    return Answers(
        embedding=embedding[None].copy(),
        probabilities=probabilities[None].copy(),
        exit_block=np.array([block], np.int32),
        blocks_run=np.array([block], np.int32),
        early=np.array([gate is not None]),
        gate=np.array([np.nan if gate is None else gate], np.float32),
        visited=(image.visited,),
        schedule=schedule_of(image.route),
    )
