"""Format the numbers of a report: shares, intervals and lists."""

from __future__ import annotations

from collections.abc import Sequence

from lraee_benchmarks.analysis.intervals import Estimate


def percent(share: float, digits: int = 2) -> str:
    """Format a share from 0 to 1 as percent, with no minus before a zero.

    >>> percent(0.5, 1), percent(-0.00001, 1)
    ('50.0 %', '0.0 %')
    """
    return f"{round(100 * share, digits) + 0.0:.{digits}f} %"


def saving(share: float, deviation: float) -> str:
    """Format FLOPs saved with their standard deviation over the seeds, if there is one."""
    return percent(share, 1) + (f" ± {100 * deviation:.1f}" if deviation else "")


def accuracy(estimate: Estimate) -> str:
    """Format a share with its interval, in percent."""
    return f"{percent(estimate.mean)} [{100 * estimate.low:.2f}, {100 * estimate.high:.2f}]"


def points(estimate: Estimate, digits: int = 2) -> str:
    """Format a difference of shares in points, with its interval.

    >>> points(Estimate(mean=0.01, low=-0.01, high=0.03))
    '+1.00 [-1.00, +3.00]'
    """
    mean, low, high = (f"{100 * value:+.{digits}f}" for value in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} [{low}, {high}]"


def listed(items: Sequence[object]) -> str:
    """Join items for reading.

    >>> listed([4, 5, 8])
    '4, 5 and 8'
    """
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def threads_text(count: int) -> str:
    """Format a number of threads."""
    return "1 thread" if count == 1 else f"{count} threads"
