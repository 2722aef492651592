"""Remembers from call to call how long parts take on this device, for policies with a deadline.

Blocks are alike, and so are exits: their times are kept together, separately for small and large batches. The first run
of each part does not count, because it makes the session and verifies its files.

Source of the estimate: RFC 6298, section 2 (retransmission timers have the same question: how late may it get?).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

DEVIATIONS = 2.0
"""How many mean deviations a prediction lies above the mean; RFC 6298 takes 4, for a fault that costs much more."""

MOST = 4.0
"""Longer runs count as this many means: after one slow run a part must not look too costly to be tried again."""


@dataclass(slots=True)
class _Estimate:
    """Holds mean and mean deviation of the seconds for one image, as exponential averages."""

    mean: float
    deviation: float

    def note(self, seconds: float) -> None:
        seconds = min(seconds, MOST * self.mean)
        self.deviation += (abs(seconds - self.mean) - self.deviation) / 4
        self.mean += (seconds - self.mean) / 8


class PartCosts:
    """Estimates what parts cost; it has a fixed size, and the threads of a model share it."""

    def __init__(self) -> None:
        """Start without any estimate."""
        self._lock = threading.Lock()
        self._ran: set[str] = set()
        self._estimates: dict[tuple[str, int], _Estimate] = {}

    def note(self, part: str, images: int, seconds: float) -> None:
        """Note that a part has run.

        Args:
            part: its name, such as ``block_03``.
            images: how many it ran for.
            seconds: for all of them together.
        """
        with self._lock:
            if part not in self._ran:
                self._ran.add(part)
                return
            key, each = (_kind(part), images.bit_length()), seconds / images
            known = self._estimates.get(key)
            if known is None:
                self._estimates[key] = _Estimate(each, each / 2)
            else:
                known.note(each)

    def predict(self, parts: Iterable[str], images: int) -> float | None:
        """Predict seconds that parts will hardly exceed together; None while nothing is known.

        An exit or tail without an estimate counts as a block, and a batch size without one as the nearest.

        Args:
            parts: names, in any order.
            images: how many they are to run for.
        """
        seconds = 0.0
        for part in parts:
            known = self._nearest(_kind(part), images.bit_length()) or self._nearest("block", images.bit_length())
            if known is None:
                return None
            seconds += (known.mean + DEVIATIONS * known.deviation) * images
        return seconds

    def _nearest(self, kind: str, size: int) -> _Estimate | None:
        with self._lock:
            sizes = [(abs(known - size), known) for name, known in self._estimates if name == kind]
            return self._estimates[kind, min(sizes)[1]] if sizes else None


class ReadCosts(PartCosts):
    """Predicts what parts cost, and notes nothing: for routes whose batches somebody else times."""

    def __init__(self, costs: PartCosts) -> None:
        """Predict from `costs`."""
        super().__init__()
        self._costs = costs

    def note(self, part: str, images: int, seconds: float) -> None:
        """Leave the estimates as they are."""

    def predict(self, parts: Iterable[str], images: int) -> float | None:
        """Predict as the costs that were given."""
        return self._costs.predict(parts, images)


def _kind(part: str) -> str:
    """Give the kind of a part: ``block`` for ``block_03``."""
    return part.partition("_")[0]
