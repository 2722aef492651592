"""PABEE offline: leave once consecutive exits have agreed often enough; see `lraee.policies.patience`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.competitors.rules import Outputs


@dataclass(frozen=True, slots=True)
class ByPatience:
    """Leave after a number of agreements in a row."""

    agreements: int
    """At least 1; n of them need n + 1 exits."""

    def passes(self, outputs: Outputs) -> NDArray[np.bool_]:
        """Compare the counter of agreements with `agreements`."""
        return np.asarray(agreements_in_a_row(outputs.predicted) >= self.agreements)

    def visits(self, exits: int) -> NDArray[np.bool_]:
        """Visit every exit, since a counter needs them all."""
        return np.ones(exits, np.bool_)


def agreements_in_a_row(predicted: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count how often each exit and those right before it have agreed, (images, exits).

    Args:
        predicted: (images, exits) label index.

    >>> agreements_in_a_row(np.array([[7, 7, 7, 2, 2]])).tolist()
    [[0, 1, 2, 0, 1]]
    """
    counted = np.zeros(predicted.shape, np.int64)
    for exit in range(1, predicted.shape[1]):
        same = predicted[:, exit] == predicted[:, exit - 1]
        counted[:, exit] = np.where(same, counted[:, exit - 1] + 1, 0)
    return counted


@dataclass(frozen=True, slots=True)
class Pabee:
    """Tries all patiences that can be reached. There are few, so a FLOPs target is seldom met exactly."""

    def rules(self, gating: Outputs) -> list[ByPatience]:
        """Give every patience, from the least."""
        return [ByPatience(agreements) for agreements in range(1, gating.exits)]
