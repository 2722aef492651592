"""Percentile bootstrap intervals: draw the samples again with replacement and look at how the statistic moves.

Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

Samples taken one after the other on a busy machine are not independent, so the interval of a latency says how well
this run determines it, not how the next run will come out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lraee_benchmarks.results import Interval

RESAMPLES = 1000
"""Enough for the 2.5 % and 97.5 % points to move by less than a tenth of the interval."""

CONFIDENCE = 0.95


def bootstrap_interval(
    count: int, statistic: Callable[[NDArray[np.intp]], float], *, seed: int, resamples: int = RESAMPLES
) -> Interval:
    """The central 95 % of a statistic over resamples.

    Args:
        count: number of samples, at least 1.
        statistic: computes the statistic from indices of samples (count,) intp. To compare two paired series, index
            both with the same indices.
        seed: fixes the resamples.
        resamples: how often to draw.

    >>> values = np.array([1.0, 1.0, 1.0])
    >>> bootstrap_interval(3, lambda rows: float(values[rows].mean()), seed=0)
    Interval(low=1.0, high=1.0)
    """
    random = np.random.default_rng(seed)
    values = np.array([statistic(random.integers(count, size=count)) for _ in range(resamples)])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))


def median_interval(samples: NDArray[np.float64], *, seed: int) -> Interval:
    """Interval of the median of `samples` (count,)."""
    return bootstrap_interval(len(samples), lambda rows: float(np.median(samples[rows])), seed=seed)


def saving_interval(samples: NDArray[np.float64], reference: NDArray[np.float64], *, seed: int) -> Interval:
    """Interval of ``1 - mean(samples) / mean(reference)``, both (rounds,), measured in the same rounds."""
    return bootstrap_interval(
        len(samples), lambda rows: float(1 - samples[rows].mean() / reference[rows].mean()), seed=seed
    )


def ratio_interval(samples: NDArray[np.float64], other: NDArray[np.float64], *, seed: int) -> Interval:
    """Interval of ``median(samples) / median(other)``, both (rounds,), measured in the same rounds."""
    return bootstrap_interval(
        len(samples), lambda rows: float(np.median(samples[rows]) / np.median(other[rows])), seed=seed
    )


def mean_interval(samples: NDArray[np.float64], *, seed: int) -> Interval:
    """Interval of the mean of `samples` (count,)."""
    return bootstrap_interval(len(samples), lambda rows: float(samples[rows].mean()), seed=seed)
