"""How long parts take on this device, remembered from call to call: what a deadline plans with.

Blocks are alike, so are exits: their times are kept together, apart for small and large batches. Of each part the first
run is left out, because it makes the session and verifies its files.

Source of the estimate: RFC 6298, section 2 (retransmission timers have the same question: how late may it get?).
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass

DEVIATIONS = 2.0
"""How many mean deviations a prediction lies above the mean; RFC 6298 takes 4, for a fault that costs much more."""

MOST = 4.0
"""Longer runs count as so many means: after a hiccup a part must not seem too dear ever to be run, and timed, again."""


@dataclass(slots=True)
class _Estimate:
    """Mean and mean deviation of the seconds that one image takes, both forgetting."""

    mean: float
    deviation: float

    def note(self, seconds: float) -> None:
        seconds = min(seconds, MOST * self.mean)
        self.deviation += (abs(seconds - self.mean) - self.deviation) / 4
        self.mean += (seconds - self.mean) / 8


class PartCosts:
    """Running estimates of what parts cost; of a fixed size, and shared by the threads of a model."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._lock = threading.Lock()
        self._ran: set[str] = set()
        self._estimates: dict[tuple[str, int], _Estimate] = {}

    def note(self, part: str, images: int, seconds: float) -> None:
        """A part has run.

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
        """Seconds that parts will hardly exceed together; None while nothing is known.

        An exit or tail that nobody has timed counts as much as a block, a batch size as much as the nearest.

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


def _kind(part: str) -> str:
    """``block`` for ``block_03``."""
    return part.partition("_")[0]
