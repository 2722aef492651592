"""Activation ranges in bounded memory: minimum and maximum, or percentiles of a streaming histogram."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lraee_exporters.quantized import ActivationRange

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
        """Take in one batch of any shape."""
        self.minimum = min(self.minimum, float(values.min()))
        self.maximum = max(self.maximum, float(values.max()))
        largest = max(abs(float(values.min())), abs(float(values.max())), 1e-12)
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
        """Everything seen."""
        return ActivationRange(minimum=self.minimum, maximum=self.maximum)

    def percentile(self, percent: float) -> ActivationRange:
        """The interval that leaves out ``(100 - percent) / 2`` percent of the values at either end."""
        cut = (100.0 - percent) / 200.0 * self._counts.sum()
        width = self._limit / HALF_BINS
        below = np.searchsorted(np.cumsum(self._counts), cut, side="right")
        above = np.searchsorted(np.cumsum(self._counts[::-1]), cut, side="right")
        low = -self._limit + below * width
        high = self._limit - above * width
        return ActivationRange(minimum=max(low, self.minimum), maximum=min(high, self.maximum))
