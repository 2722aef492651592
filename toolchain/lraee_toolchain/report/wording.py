"""Format the numbers of a report: shares, intervals and lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def percent(share: float, digits: int = 2) -> str:
    """A share from 0 to 1 as percent; nothing is never less than nothing.

    >>> percent(0.5, 1), percent(-0.00001, 1)
    ('50.0 %', '0.0 %')
    """
    return f"{round(100 * share, digits) + 0.0:.{digits}f} %"


def accuracy(interval: Mapping[str, float]) -> str:
    """A share with its interval, in percent."""
    return f"{percent(interval['mean'])} [{100 * interval['low']:.2f}, {100 * interval['high']:.2f}]"


def points(interval: Mapping[str, float]) -> str:
    """A difference of shares in points, with its interval.

    >>> points({"mean": 0.01, "low": -0.01, "high": 0.03})
    '+1.00 [-1.00, +3.00]'
    """
    return f"{100 * interval['mean']:+.2f} [{100 * interval['low']:+.2f}, {100 * interval['high']:+.2f}]"


def listed(items: Sequence[object]) -> str:
    """Joined for reading.

    >>> listed([4, 5, 8])
    '4, 5 and 8'
    """
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
