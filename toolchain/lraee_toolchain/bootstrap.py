"""Paired bootstrap intervals: is a difference in accuracy more than the luck of the test images?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: NDArray[np.float64], *, seed: int = 0, confidence: float = 0.95) -> Interval:
    """Percentile bootstrap of the mean over images.

    Pass per-image differences of two methods for a paired interval; average over seeds first, image by image.
    Resampled counts are Poisson(1) for each image (Chamandy et al. 2012). Accuracies and their differences take few
    distinct values, and the counts of equal values add up to one Poisson count.

    Args:
        values: (images,).
        seed: of the resampling.
        confidence: share of resampled means within the interval.
    """
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    weights = generator.poisson(counts, (RESAMPLES, len(distinct)))
    means = weights @ distinct / np.maximum(weights.sum(axis=1), 1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(mean=float(np.mean(values)), low=float(low), high=float(high))
