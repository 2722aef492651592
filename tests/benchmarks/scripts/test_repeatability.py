"""Two runs agree where the intervals that they state have a value in common."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from experiments import repeatability
from lraee_benchmarks.results.model import Interval, Report


def moved(report: Report, by_ms: float) -> Report:
    """The same report with every median latency, and its interval, elsewhere."""
    rows = []
    for row in report.rows:
        interval = row.latency.p50_interval_ms
        other = Interval(low=interval.low + by_ms, high=interval.high + by_ms)
        rows.append(dataclasses.replace(row, latency=dataclasses.replace(row.latency, p50_interval_ms=other)))
    return dataclasses.replace(report, rows=tuple(rows))


def test_pairs_are_counted_for_each_row_and_number(make_report: Callable[..., Report]) -> None:
    """Intervals are 0.2 ms wide: a tenth apart they overlap, three tenths apart they do not."""
    report = make_report()
    pairs = [(report, moved(report, 0.1)), (report, moved(report, 0.3))]
    agreeing = repeatability.count(pairs)
    assert list(agreeing) == [row.name for row in report.rows]
    assert all(counts == {"p50": 1, "latency saved": 2, "chain / row": 2} for counts in agreeing.values())
    assert repeatability.count_whole(pairs) == 1


def test_numbers_of_the_second_run_are_looked_for_in_the_first_ones_interval(
    make_report: Callable[..., Report],
) -> None:
    """The medians of all rows are moved out of it, two of three numbers stay."""
    report = make_report()
    rows = [
        dataclasses.replace(row, latency=dataclasses.replace(row.latency, p50_ms=row.latency.p50_interval_ms.high + 1))
        for row in report.rows
    ]
    assert repeatability.share_predicted([(report, report)]) == 1
    other = dataclasses.replace(report, rows=tuple(rows))
    assert repeatability.share_predicted([(report, other)]) == pytest.approx(2 / 3)
