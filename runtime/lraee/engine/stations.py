"""Images wait after each exit, and batches run from queue to queue: what a stream and a live service share.

Unlike in `orchestrator.run`, the images of one batch have visited different exits, so each has its own route. They may
also be classified among different labels: blocks and stem run for all of them together, exits and tail for each set of
labels in turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.arrays import FloatArray
from lraee.engine.orchestrator import Answers, Tower
from lraee.engine.sized_tokens import Tokens, stacked
from lraee.errors import LraeeError
from lraee.policies.base import AnytimeRoute, Route, Verdict, is_anytime, schedule_of


@dataclass(slots=True, eq=False)
class Traveller:
    """Holds the state of one image between its batches."""

    position: int
    """Its place in the order of arrival."""
    route: Route
    tower: Tower[Tokens]
    """Runs its exits and its tail: those of its labels."""
    anytime: AnytimeRoute | None = None
    """The route, where it may end the run between two exits."""
    visited: tuple[int, ...] = ()
    kept: tuple[int, Verdict] | None = None
    """The exit visited last and what it said, for routes that may end the run between two exits."""
    tokens: Tokens | None = None
    """(tokens, width) while it waits in a queue."""


Answered = list[tuple[int, Answers]]
"""Position of each image that has left, and its answer as a batch of one."""


def traveller(position: int, route: Route, tower: Tower[Tokens]) -> Traveller:
    """Make the state of an image that has just arrived."""
    return Traveller(position, route, tower, route if is_anytime(route) else None)


class Stations:
    """Holds the queue of images after each exit, and runs batches from queue to queue."""

    def __init__(
        self,
        tower: Tower[Tokens],
        batch_size: int,
        noted: Callable[[str, int], None],
        refused: Callable[[int, LraeeError], None] | None = None,
        under_way: Callable[[], int] | None = None,
    ) -> None:
        """Begin with empty queues.

        Args:
            tower: whose stem and blocks run for all images; their own towers have the same.
            batch_size: images that run together.
            noted: called after each part with its name and the number of images it ran for.
            refused: called with the position of an image whose route raises an error, which then has no answer. None
                lets the error end the batch.
            under_way: counts the images that are to be answered, with those of the batch that runs. Where there are no
                others, that batch does not wait. None: it waits at each exit.
        """
        self.waiting: dict[int, deque[Traveller]] = {
            block: deque() for block in range(1, tower.depth + 1) if tower.has_exit(block)
        }
        self._tower = tower
        self._batch_size = batch_size
        self._noted = noted
        self._refused = refused
        self._under_way = under_way

    def deepest_full(self) -> int | None:
        """Name the deepest block with a full batch after it."""
        return next((block for block in reversed(self.waiting) if len(self.waiting[block]) >= self._batch_size), None)

    def shallowest(self) -> int | None:
        """Name the first block with an image after it."""
        return next((block for block, queue in self.waiting.items() if queue), None)

    def travellers(self) -> Iterator[tuple[int, Traveller]]:
        """Yield every image that waits, with the block that it waits after."""
        return ((block, one) for block, queue in self.waiting.items() for one in queue)

    def forget(self, positions: Set[int]) -> None:
        """Take images out of their queues."""
        for block, queue in self.waiting.items():
            if any(image.position in positions for image in queue):
                self.waiting[block] = deque(image for image in queue if image.position not in positions)

    def enter(self, images: Sequence[Traveller], pixels: Sequence[NDArray[np.uint8]]) -> Answered:
        """Run new images to the first exit that one of them visits; gives the answers of those that left."""
        tokens = self._tower.stem(np.stack(pixels))
        self._ran("stem", images)
        return self._travel(0, list(images), tokens)

    def leave_for(self, block: int) -> Answered:
        """Run a batch that waits after `block` to the next exit; gives the answers of those that left."""
        queue = self.waiting[block]
        images = [queue.popleft() for _ in range(min(len(queue), self._batch_size))]
        tokens = stacked([image.tokens for image in images if image.tokens is not None])
        for image in images:
            image.tokens = None
        return self._travel(block, images, tokens)

    def _travel(self, start: int, images: list[Traveller], tokens: Tokens) -> Answered:
        answered: Answered = []
        for block in range(start + 1, self._tower.depth + 1):
            tokens = self._tower.block(block, tokens)
            self._ran(f"block_{block:02d}", images)
            staying = [row for row, image in enumerate(images) if not _stops(image, block)]
            if len(staying) < len(images):
                answered += [_kept_answer(image, block) for row, image in enumerate(images) if row not in staying]
                if not staying:
                    return answered
                images, tokens = [images[row] for row in staying], tokens[staying]
            asking = [block in self.waiting and image.route.visits(block) for image in images]
            if not any(asking):
                continue
            left = self._ask(block, images, tokens, np.array(asking))
            answered += [(position, answer) for position, answer in left.items() if answer is not None]
            staying = [row for row, image in enumerate(images) if image.position not in left]
            is_full = len(staying) == self._batch_size and not self.waiting[block]
            if is_full or (len(staying) == len(images) and self._are_all(images)):
                continue  # nothing would be gained by waiting
            for row in staying:
                images[row].tokens = tokens[row].copy()
                self.waiting[block].append(images[row])
            return answered
        return answered + self._finish(images, tokens)

    def _are_all(self, images: list[Traveller]) -> bool:
        """Tell whether there are no images but those of this batch."""
        return self._under_way is not None and self._under_way() == len(images)

    def _finish(self, images: list[Traveller], tokens: Tokens) -> Answered:
        found: Answered = []
        for tower, rows in _by_tower(images):
            embedding, probabilities = tower.tail(tokens if len(rows) == len(images) else tokens[rows])
            self._ran("tail", [images[row] for row in rows])
            for at, row in enumerate(rows):
                answer = _answer(images[row], self._tower.depth, embedding[at], probabilities[at], None)
                found.append((images[row].position, answer))
        return found

    def _ask(
        self, block: int, images: list[Traveller], tokens: Tokens, asking: NDArray[np.bool_]
    ) -> dict[int, Answers | None]:
        """Evaluate the exit for the images that visit it.

        Returns:
            The answers of those that leave, by position; None where a route refused.
        """
        left: dict[int, Answers | None] = {}
        for tower, rows in _by_tower(images, asking):
            verdict = tower.exit(block, tokens if len(rows) == len(images) else tokens[rows], rows)
            self._ran(f"exit_{block:02d}", [images[row] for row in rows])
            for at, row in enumerate(rows):
                image, alone = images[row], _alone(verdict, at)
                image.visited += (block,)
                try:
                    leaves = bool(image.route.leaves(block, alone)[0])
                except LraeeError as error:
                    if self._refused is None:
                        raise
                    left[image.position] = None
                    self._refused(image.position, error)
                    continue
                if leaves:
                    left[image.position] = _answer(
                        image, block, alone.embedding[0], alone.probabilities[0], alone.gate[0]
                    )
                elif image.anytime is not None:
                    image.kept = block, _copied(alone)
        return left

    def _ran(self, part: str, images: Sequence[Traveller]) -> None:
        self._noted(part, len(images))
        for image in images:
            if image.anytime is not None:
                image.anytime.ran(part, len(images))


def _by_tower(
    images: list[Traveller], asking: NDArray[np.bool_] | None = None
) -> Iterator[tuple[Tower[Tokens], NDArray[np.intp]]]:
    """Yield the rows of a batch, or those of them that ask, for each tower that they belong to."""
    groups: dict[int, list[int]] = {}
    for row, image in enumerate(images):
        if asking is None or asking[row]:
            groups.setdefault(id(image.tower), []).append(row)
    for rows in groups.values():
        yield images[rows[0]].tower, np.array(rows, np.intp)


def _stops(image: Traveller, block: int) -> bool:
    return image.kept is not None and image.anytime is not None and image.anytime.stops(block)


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


def _copied(verdict: Verdict) -> Verdict:
    return Verdict(
        verdict.embedding.copy(),
        verdict.probabilities.copy(),
        verdict.features.copy(),
        verdict.gate.copy(),
        verdict.rows,
    )


def _kept_answer(image: Traveller, block: int) -> tuple[int, Answers]:
    """Give the answer of the exit visited last to an image that stops after a later block."""
    if image.kept is None:
        raise AssertionError("a route stopped before any exit was visited")
    exit_block, verdict = image.kept
    answer = _answer(image, exit_block, verdict.embedding[0], verdict.probabilities[0], verdict.gate[0], block)
    return image.position, answer


def _answer(
    image: Traveller,
    block: int,
    embedding: FloatArray,
    probabilities: FloatArray,
    gate: np.float32 | None,
    ran: int | None = None,
) -> Answers:
    """Copy the answer of one image, so that it does not keep the arrays of a whole batch alive.

    Args:
        image: that is answered.
        block: after which it left, or the depth of the tower.
        embedding: (embed_dim,) float32.
        probabilities: (labels,) float32.
        gate: of the exit through which it left; None at full depth.
        ran: blocks that ran for it, where they are more.
    """
    return Answers(
        embedding=embedding[None].copy(),
        probabilities=probabilities[None].copy(),
        exit_block=np.array([block], np.int32),
        blocks_run=np.array([block if ran is None else ran], np.int32),
        early=np.array([gate is not None]),
        gate=np.array([np.nan if gate is None else gate], np.float32),
        visited=(image.visited,),
        schedule=schedule_of(image.route),
    )
