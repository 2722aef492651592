"""Compute intervals of what was measured.

Where memory lies, and how threads fall on cores, is settled when a process starts, so that the samples of one process
are not independent. With several launches each of them gives one value, and from these follows where a further value
will lie with a probability of 95 % (Student's prediction interval): for ratios and savings that of the next run, of as
many launches; for latencies that of one launch more, since clock, heat and neighbours drift over minutes, which the
launches of a run share and the next run does not. Ratios from the same rounds are not affected. Samples of one
process, and images, are drawn again with replacement instead (percentile bootstrap); for latencies that says only how
well this process determines them.

Sources: T. Kalibera, R. Jones, Rigorous Benchmarking in Reasonable Time (ISMM 2013); G. Hahn, W. Meeker, Statistical
Intervals (1991), chapter 4; B. Efron, R. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lraee_benchmarks.results.model import Interval

RESAMPLES = 1000
"""Enough for the 2.5 % and 97.5 % points to move by less than a tenth of the interval."""

CONFIDENCE = 0.95

STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % points of Student's distribution for 1, 2, ... degrees of freedom."""

NORMAL = 1.960
"""97.5 % point of the normal distribution."""

IMAGE_RESAMPLES = 10_000
"""Resamples of `mean_over_images`, whose cost does not grow with the images."""

Launches: TypeAlias = NDArray[np.intp] | None
"""(rounds,): the process that each round ran in, counted from 0."""

Statistic: TypeAlias = Callable[[NDArray[np.intp]], float]
"""Computed from indices of samples, intp. To compare paired series, index all with the same indices."""


def interval(
    count: int, statistic: Statistic, *, seed: int, launches: Launches = None, drifts: bool = False
) -> Interval:
    """Over launches where there are several, else over samples.

    Args:
        count: number of samples, at least 1.
        statistic: of which the interval is wanted.
        seed: fixes the resamples.
        launches: which process each sample is of.
        drifts: the launches share what the next run may not; see `launch_interval`.
    """
    if launches is None or len(np.unique(launches)) < 2:
        return bootstrap_interval(count, statistic, seed=seed)
    return launch_interval(launches, statistic, further=1 if drifts else None)


def launch_interval(launches: NDArray[np.intp], statistic: Statistic, *, further: int | None = None) -> Interval:
    """Where the statistic will lie in further launches, if its values in single launches are independent.

    Its value over all, times or divided by ``exp(student * deviation * sqrt(1 / launches + 1 / further))``. The
    deviation is that of the logarithms: what is measured here is positive, and differs by factors.

    Args:
        launches: which process each sample is of; at least two.
        statistic: of which the interval is wanted; positive.
        further: launches; None for as many as there were.

    >>> values = np.array([9.0, 9.0, 10.0, 10.0, 11.0, 11.0])
    >>> launch_interval(np.array([0, 0, 1, 1, 2, 2]), lambda rows: float(values[rows].mean()))
    Interval(low=7.028..., high=14.228...)
    """
    logs = np.log([statistic(np.flatnonzero(launches == launch)) for launch in np.unique(launches)])
    share = 1 / len(logs) + 1 / (further or len(logs))
    factor = np.exp(student(len(logs) - 1) * logs.std(ddof=1) * np.sqrt(share))
    middle = statistic(np.arange(len(launches)))
    return Interval(low=float(middle / factor), high=float(middle * factor))


def student(freedom: int) -> float:
    """97.5 % point of Student's distribution; beyond the table by an expansion that is right to three decimals.

    Source: M. Abramowitz, I. Stegun, Handbook of Mathematical Functions (1964), 26.7.5.

    >>> student(4), round(student(30), 3)
    (2.776, 2.042)
    """
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NORMAL
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return float(sum(term / freedom**power for power, term in enumerate(terms)))


def bootstrap_interval(count: int, statistic: Statistic, *, seed: int, resamples: int = RESAMPLES) -> Interval:
    """The central 95 % of a statistic over resamples.

    Args:
        count: number of samples, at least 1.
        statistic: of `count` indices.
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


def median_interval(samples: NDArray[np.float64], *, seed: int, launches: Launches = None) -> Interval:
    """Interval of the median of `samples` (count,), latencies."""
    return interval(
        len(samples), lambda rows: float(np.median(samples[rows])), seed=seed, launches=launches, drifts=True
    )


def saving_interval(
    samples: NDArray[np.float64], references: NDArray[np.float64], *, seed: int, launches: Launches = None
) -> Interval:
    """Interval of ``1 - mean(samples) / mean of the fastest reference``, measured in the same rounds.

    Args:
        samples: (rounds,).
        references: (candidates, rounds). The fastest is selected again in every launch or resample: two of nearly
            the same speed change places from run to run, and an interval against the winner of this run would hide it.
        seed: as in `interval`.
        launches: as in `interval`.
    """
    share = interval(
        len(samples),
        lambda rows: float(samples[rows].mean() / min(reference[rows].mean() for reference in references)),
        seed=seed,
        launches=launches,
    )
    return Interval(low=1 - share.high, high=1 - share.low)


def ratio_interval(
    samples: NDArray[np.float64], other: NDArray[np.float64], *, seed: int, launches: Launches = None
) -> Interval:
    """Interval of ``median(samples) / median(other)``, both (rounds,), measured in the same rounds."""
    return interval(
        len(samples),
        lambda rows: float(np.median(samples[rows]) / np.median(other[rows])),
        seed=seed,
        launches=launches,
    )


def mean_interval(samples: NDArray[np.float64], *, seed: int) -> Interval:
    """Interval of the mean of `samples` (count,)."""
    return bootstrap_interval(len(samples), lambda rows: float(samples[rows].mean()), seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean with its 95 % interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def mean_over_images(values: NDArray[np.float64]) -> Estimate:
    """Estimate a mean over images by a percentile bootstrap whose counts are Poisson(1) for each image.

    Pass per-image differences of two methods for a paired interval; average over seeds first, image by image.
    Accuracies and their differences take few distinct values, and the counts of equal values add up to one Poisson
    count, so that 10,000 resamples of 100,000 images take milliseconds.

    Source: N. Chamandy et al., Estimating Uncertainty for Massive Data Streams (2012).

    Args:
        values: (images,).

    >>> mean_over_images(np.ones(300))
    Estimate(mean=1.0, low=1.0, high=1.0)
    """
    distinct, counts = np.unique(values, return_counts=True)
    weights = np.random.default_rng(0).poisson(counts, (IMAGE_RESAMPLES, len(distinct)))
    means = weights @ distinct / np.maximum(weights.sum(axis=1), 1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(mean=float(np.mean(values)), low=float(low), high=float(high))
