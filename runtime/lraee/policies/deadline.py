"""All images of a batch get the best answer that can be computed in time: an anytime policy.

After each block it estimates, from earlier calls, the time to the next answer: the blocks up to the next exit and that
exit, or the tail.

- If the time left covers the next answer twice, skip this exit: it would only cost time.
- If it covers it once, evaluate this exit, keep its answer and go on.
- Otherwise return this exit's answer, or the last one kept.

The best answer is that of the deepest exit that was evaluated, or of the tail. This differs from `exit_at`, since each
call chooses its block by the clock. It works best on a bundle with an exit after every block
(``lraee-export --exits all``).

The time counts from the start of the call, so it includes reading and resizing the images. In `classify_batch` every
batch has the whole deadline, from when its first image is read. There is always an answer: when the time is up before
the first exit, the run goes on to it. Otherwise an answer is late by at most the part that was running: a block, and
its exit when no answer was kept; where blocks have no exit, all blocks up to the next one. A model that has not yet
timed its parts evaluates every exit. Making a session takes time too, so call `Model.warm` before it matters.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest, block_names
from lraee.checks import is_number
from lraee.errors import PolicyError
from lraee.policies.base import Policy, Route, Verdict, bind, schedule_of
from lraee.policies.full import Full
from lraee.policies.part_costs import PartCosts

AT_EASE = 2.0
"""How many times the next answer must fit into the time left for an exit to be skipped."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """Ends the run when the time is up."""

    ms: float
    """Milliseconds from the start of the call; above 0."""
    policy: Policy | None = None
    """Another policy by which images may leave earlier, such as ``Adaptive()``; None lets the time alone decide."""
    clock: Callable[[], float] = field(default=time.perf_counter, repr=False, compare=False)
    """Gives seconds."""

    def bind(self, manifest: Manifest) -> DeadlineRoute:
        """Start the time, and make the route."""
        begun = self.clock()
        if not is_number(self.ms) or not 0 < self.ms < math.inf:
            raise PolicyError(f"the deadline is {self.ms} ms, wanted a time above 0, such as 40")
        inner = bind(self.policy if self.policy is not None else Full(), manifest)
        exits = manifest.schedule(schedule_of(inner)).exits
        if not exits:
            raise PolicyError(
                "a deadline needs exits, and this bundle has none; export it again with lraee-export --exits all"
            )
        end = begun + float(self.ms) / 1000
        return DeadlineRoute(end, self.clock, manifest.tower.blocks, [exit.block for exit in exits], inner)


class DeadlineRoute:
    """Compares the time left for one batch with what parts cost."""

    def __init__(
        self, end: float, clock: Callable[[], float], depth: int, exits: Sequence[int], inner: Route | None = None
    ) -> None:
        """Begin without any costs; `lends` gives those of the model.

        Args:
            end: what `clock` shows when the time is up, seconds.
            clock: gives seconds.
            depth: how many blocks there are.
            exits: blocks with an exit, in rising order.
            inner: another route by which images may leave; None for none.
        """
        self._end, self._clock = end, clock
        self._inner: Route = inner if inner is not None else Full()
        self.schedule = schedule_of(self._inner)
        self._exits = frozenset(exits)
        self._ways = {block: _way(block, depth, exits) for block in range(depth + 1)}
        self._costs = PartCosts()
        self._began = clock()
        self._images = 0
        self._kept = False

    def lends(self, costs: PartCosts) -> None:
        """Use the costs that the model knows of its parts, and add to them."""
        self._costs = costs

    def ran(self, part: str, images: int) -> None:
        """Note how long a part took, except the stem: its time includes the reading of the images."""
        now = self._clock()
        if part != "stem":
            self._costs.note(part, images, now - self._began)
        self._began, self._images = now, images

    def stops(self, block: int) -> bool:
        """Tell whether an answer was kept and no better one can be computed in time."""
        better = [f"exit_{block:02d}"] if block in self._exits else self._ways[block]
        return self._kept and not self._fits(better, self._images)

    def visits(self, block: int) -> bool:
        """Visit exits where the next answer may not fit into the time, or where the other policy visits."""
        return self._inner.visits(block) or not self._fits(self._ways[block], self._images, times=AT_EASE)

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Let every image leave when the next answer does not fit into the time, else those of the other policy."""
        self._kept = True
        leaving = np.zeros(len(verdict.gate), np.bool_)
        if self._inner.visits(block):
            leaving = self._inner.leaves(block, verdict)
        staying = int(len(leaving) - leaving.sum())
        if not self._fits(self._ways[block], staying):
            return np.ones_like(leaving)
        return leaving

    def _fits(self, parts: Sequence[str], images: int, times: float = 1.0) -> bool:
        """Tell whether parts can run before the end; without an estimate, only that they can run once."""
        left = self._end - self._clock()
        predicted = self._costs.predict(parts, images)
        if predicted is None:
            return left > 0 and times == 1
        return predicted * times <= left


def _way(block: int, depth: int, exits: Sequence[int]) -> list[str]:
    """List the parts after `block` up to the next answer.

    >>> _way(1, 4, [1, 3])
    ['block_02', 'block_03', 'exit_03']
    >>> _way(3, 4, [1, 3])
    ['block_04', 'tail']
    """
    following = next((exit for exit in exits if exit > block), None)
    if following is None:
        return [*block_names(depth)[block:], "tail"]
    return [*block_names(following)[block:], f"exit_{following:02d}"]
