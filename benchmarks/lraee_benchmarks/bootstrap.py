"""Percentile bootstrap intervals: draw the samples again with replacement and look at how the statistic moves.

Source: B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

Samples of one process are not independent: the interval of a latency then says how well this process determines it.
With several launches, processes are drawn first, and it says how the next run will come out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lraee_benchmarks.results import Interval

RESAMPLES = 1000
"""Enough for the 2.5 % and 97.5 % points to move by less than a tenth of the interval."""

CONFIDENCE = 0.95

Launches: TypeAlias = NDArray[np.intp] | None
"""(rounds,): the process that each round ran in, counted from 0."""


def bootstrap_interval(
    count: int,
    statistic: Callable[[NDArray[np.intp]], float],
    *,
    seed: int,
    resamples: int = RESAMPLES,
    launches: Launches = None,
) -> Interval:
    """The central 95 % of a statistic over resamples.

    Args:
        count: number of samples, at least 1.
        statistic: computes the statistic from indices of samples (count,) intp. To compare two paired series, index
            both with the same indices.
        seed: fixes the resamples.
        resamples: how often to draw.
        launches: which process each sample is of; with several, processes are drawn first and then samples in each.

    >>> values = np.array([1.0, 1.0, 1.0])
    >>> bootstrap_interval(3, lambda rows: float(values[rows].mean()), seed=0)
    Interval(low=1.0, high=1.0)
    """
    random = np.random.default_rng(seed)
    groups = [np.flatnonzero(launches == launch) for launch in np.unique(launches)] if launches is not None else []

    def drawn() -> NDArray[np.intp]:
        if len(groups) < 2:
            return random.integers(count, size=count)
        chosen = (groups[number] for number in random.integers(len(groups), size=len(groups)))
        return np.concatenate([group[random.integers(len(group), size=len(group))] for group in chosen])

    values = np.array([statistic(drawn()) for _ in range(resamples)])
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))


def median_interval(samples: NDArray[np.float64], *, seed: int, launches: Launches = None) -> Interval:
    """Interval of the median of `samples` (count,)."""
    return bootstrap_interval(len(samples), lambda rows: float(np.median(samples[rows])), seed=seed, launches=launches)


def saving_interval(
    samples: NDArray[np.float64], reference: NDArray[np.float64], *, seed: int, launches: Launches = None
) -> Interval:
    """Interval of ``1 - mean(samples) / mean(reference)``, both (rounds,), measured in the same rounds."""
    return bootstrap_interval(
        len(samples),
        lambda rows: float(1 - samples[rows].mean() / reference[rows].mean()),
        seed=seed,
        launches=launches,
    )


def ratio_interval(
    samples: NDArray[np.float64], other: NDArray[np.float64], *, seed: int, launches: Launches = None
) -> Interval:
    """Interval of ``median(samples) / median(other)``, both (rounds,), measured in the same rounds."""
    return bootstrap_interval(
        len(samples),
        lambda rows: float(np.median(samples[rows]) / np.median(other[rows])),
        seed=seed,
        launches=launches,
    )


def mean_interval(samples: NDArray[np.float64], *, seed: int) -> Interval:
    """Interval of the mean of `samples` (count,)."""
    return bootstrap_interval(len(samples), lambda rows: float(samples[rows].mean()), seed=seed)
