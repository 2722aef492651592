"""Images leave in given shares, whatever they show, to time a known mix of depths.

It serves to measure where the bundle's gates mean nothing, as with random weights, or where shares are known, as those
of the paper. Exits with a share are visited and evaluated like those of a learned gate.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.checks import is_count, is_number
from lraee.errors import PolicyError
from lraee.policies.base import Policy, Route, Verdict, schedule_of
from lraee.policies.full import Full

STEPS = ((5**0.5 - 1) / 2, 2**0.5 - 1)
"""From one call, and one row of a batch, to the next: multiples of either, modulo 1, fill 0..1 evenly."""


@dataclass(frozen=True, slots=True)
class Replay:
    """Lets images leave by share. One object spreads them evenly over its calls, and over the rows of a batch."""

    shares: tuple[tuple[int, float], ...]
    """(block, share of all images that leave after it); the rest runs to the end."""
    _calls: Iterator[int] = field(default_factory=itertools.count, repr=False, compare=False)

    def starting_at(self, call: int) -> Replay:
        """Give the same shares from a certain call on, to run one image again as it ran before."""
        return Replay(self.shares, itertools.count(call))

    def bind(self, manifest: Manifest) -> ReplayRoute:
        """Check blocks and shares, and take the next place in the sequence."""
        if not isinstance(self.shares, tuple | list) or not all(map(_is_share, self.shares)):
            raise PolicyError(
                f"replay has {self.shares!r}; wanted (block, share) pairs, such as ((8, 0.1), (10, 0.25))"
            )
        blocks = [block for block, _ in self.shares]
        if not blocks or blocks != sorted(set(blocks)):
            raise PolicyError(f"replay has the blocks {blocks}; wanted one or more, each once, in rising order")
        there = [exit.block for exit in manifest.exits]
        if missing := [block for block in blocks if block not in there]:
            raise PolicyError(
                f"replay has a share for block {missing[0]}, and this bundle has exits after {there or 'no block'}; "
                "export it again with more lraee-export --exits"
            )
        values = [share for _, share in self.shares]
        if not all(0 < share <= 1 for share in values) or math.fsum(values) > 1 + 1e-9:
            raise PolicyError(f"replay has the shares {values}; wanted each above 0, together at most 1")
        reached = dict(zip(blocks, itertools.accumulate(values), strict=True))
        return ReplayRoute(reached, next(self._calls) * STEPS[0])


def _is_share(item: object) -> bool:
    """Tell whether this is a block and a number."""
    return isinstance(item, tuple | list) and len(item) == 2 and is_count(item[0]) and is_number(item[1])


@dataclass(slots=True)
class EveryExit:
    """Visit every exit and keep what it says; an image leaves where another policy lets it, by default nowhere.

    For measuring and recording; one object serves one run at a time.
    """

    policy: Policy = field(default_factory=Full)
    """Decides who leaves."""
    verdicts: dict[int, Verdict] = field(init=False)
    """What the exits of the last run said, by block."""
    _route: Route = field(init=False)

    @property
    def schedule(self) -> str | None:
        """Merging schedule of the other policy, once bound."""
        return schedule_of(self._route)

    def bind(self, manifest: Manifest) -> EveryExit:
        """Forget the last run."""
        self.verdicts, self._route = {}, self.policy.bind(manifest)
        return self

    def visits(self, block: int) -> bool:
        """Every exit is visited."""
        return True

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Ask the other policy, if it visits this exit."""
        self.verdicts[block] = verdict
        if self._route.visits(block):
            return self._route.leaves(block, verdict)
        return np.zeros(len(verdict.gate), np.bool_)


class ReplayRoute:
    """Chooses which images of one batch leave after which block."""

    def __init__(self, reached: dict[int, float], start: float) -> None:
        """Remember the shares.

        Args:
            reached: share that has left up to a block, that block included.
            start: the batch's place in the sequence.
        """
        self._reached = reached
        self._start = start

    def visits(self, block: int) -> bool:
        """Visit the exits that have a share."""
        return block in self._reached

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Let images leave whose place, 0 to 1, lies below the share that has left so far."""
        return np.asarray((self._start + verdict.rows * STEPS[1]) % 1.0 < self._reached[block])
