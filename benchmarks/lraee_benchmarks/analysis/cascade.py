"""A cascade of stops at which images may leave, and thresholds that are best for a price of FLOPs; for experiments."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

GRID = 23
"""Thresholds tried for each stop: quantiles of its gate, beside a closed stop."""

PRICES = np.geomspace(0.01, 1.0, 20)
"""Accuracy that all FLOPs of full depth are worth."""

ROUNDS = 4

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cascade:
    """Where images may leave, what is right there and what it costs."""

    good: Array
    """(images, stops + 1) 1 where the stop, and last the end, is right."""
    leaving: Array
    """(stops + 1,) FLOPs of leaving at each stop, and of running to the end, as shares of full depth without stops; an
    image pays for every stop that is open on its way besides."""
    visits: Array
    """(stops,) FLOPs of evaluating each stop, as shares of full depth."""

    def some(self, rows: NDArray[np.bool_]) -> Cascade:
        """Select images."""
        return replace(self, good=self.good[rows])

    def outcome(self, gate: NDArray[np.float32], thresholds: Array) -> tuple[Array, Array]:
        """Give what each image saves, a share of full depth, and 1, 0 or -1: right more, as often, less often.

        Args:
            gate: (images, stops).
            thresholds: (stops,); infinite ones close a stop.
        """
        passes = np.column_stack([gate >= thresholds, np.ones(len(gate), np.bool_)])
        where = passes.argmax(axis=1)
        visited = np.append(np.cumsum(self.visits * np.isfinite(thresholds)), 0)
        visited[-1] = visited[-2]
        change = self.good[np.arange(len(where)), where] - self.good[:, -1]
        return 1 - (self.leaving + visited)[where], change

    def search(self, gate: NDArray[np.float32]) -> list[Array]:
        """Find thresholds that are best for some price of FLOPs, one threshold after the other until none gains."""
        grids = [np.append(np.quantile(column, np.linspace(0, 0.98, GRID)), np.inf) for column in gate.T]
        thresholds, found = np.full(len(grids), np.inf), []

        def value(tried: Array, price: float) -> float:
            saved, change = self.outcome(gate, tried)
            return float(change.mean() + price * saved.mean())

        for price in PRICES:
            for _ in range(ROUNDS):
                before = thresholds.copy()
                for place, grid in enumerate(grids):
                    tried = [np.where(np.arange(len(grids)) == place, level, thresholds) for level in grid]
                    thresholds = max(tried, key=lambda one: value(one, price))
                if (thresholds == before).all():
                    break
            found.append(thresholds)
        return found
