"""Collect activation ranges in bounded memory: minimum and maximum, or percentiles of a streaming histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lraee.errors import ExportError
from lraee_exporters.int8.linear import ALL_LEVELS, ActivationRange, Levels

HALF_BINS = 2048
"""Histogram bins on each side of zero; a bin is 1/2048 of the largest magnitude at most a factor of 2 ago."""


class RangeCollector:
    """Collects one tensor's range over any number of batches.

    The histogram is symmetric around zero; when a value falls outside, its width doubles and neighbouring bins merge,
    so nothing is kept but `2 * HALF_BINS` counts.
    """

    def __init__(self) -> None:
        self.minimum = np.inf
        self.maximum = -np.inf
        self._limit = 0.0
        self._counts = np.zeros(2 * HALF_BINS, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Take in one batch of any shape.

        Raises:
            ExportError: a value is NaN or infinite.
        """
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise ExportError(
                f"activations reach from {low} to {high}, wanted finite numbers; the weights overflow on calibration "
                "images, check the checkpoint"
            )
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        largest = max(abs(low), abs(high), 1e-12)
        if self._limit == 0.0:
            self._limit = largest * 1.0001
        while largest >= self._limit:
            self._double()
        scaled = values.ravel() * np.float32(HALF_BINS / self._limit) + np.float32(HALF_BINS)
        bins = np.clip(scaled.astype(np.int32), 0, 2 * HALF_BINS - 1)
        self._counts += np.bincount(bins, minlength=2 * HALF_BINS)

    def _double(self) -> None:
        merged = self._counts.reshape(HALF_BINS, 2).sum(axis=1)
        self._counts[:] = 0
        self._counts[HALF_BINS // 2 : HALF_BINS // 2 + HALF_BINS] = merged
        self._limit *= 2

    def minmax(self) -> ActivationRange:
        """Return the range of everything seen."""
        return ActivationRange(minimum=self.minimum, maximum=self.maximum)

    def percentile(self, percent: float) -> ActivationRange:
        """Return the interval that leaves out ``(100 - percent) / 2`` percent of the values at either end."""
        cut = (100.0 - percent) / 200.0 * self._counts.sum()
        width = self._limit / HALF_BINS
        below = np.searchsorted(np.cumsum(self._counts), cut, side="right")
        above = np.searchsorted(np.cumsum(self._counts[::-1]), cut, side="right")
        low = -self._limit + below * width
        high = self._limit - above * width
        return ActivationRange(minimum=max(low, self.minimum), maximum=min(high, self.maximum))


def least_error_range(
    values: NDArray[np.float32], *, steps: int = 24, most: int = 200_000, levels: Levels = ALL_LEVELS
) -> ActivationRange:
    """Find the range whose levels give the least mean squared error on `values` of any shape.

    Both ends are drawn in by factors from 1 down to 0.2, one end after the other until neither moves.

    Args:
        values: float32 of any shape.
        steps: factors tried for each end.
        most: values used; more are thinned out.
        levels: how many there are.
    """
    flat = values.ravel()
    flat = flat[:: max(1, len(flat) // most)]
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    factors = np.linspace(1.0, 0.2, steps)

    def error(at: tuple[float, float]) -> float:
        candidate = ActivationRange(minimum=at[0] * low, maximum=at[1] * high, levels=levels)
        rounded = np.clip(np.rint(flat / np.float32(candidate.scale)) + candidate.zero_point, 0, levels.inputs)
        back = (rounded - candidate.zero_point) * np.float32(candidate.scale)
        return float(np.square(back - flat, dtype=np.float64).mean())

    best = (1.0, 1.0)
    for _ in range(4):
        before = best
        best = min(((factor, best[1]) for factor in factors), key=error)
        best = min(((best[0], factor) for factor in factors), key=error)
        if best == before:
            break
    return ActivationRange(minimum=best[0] * low, maximum=best[1] * high, levels=levels)
