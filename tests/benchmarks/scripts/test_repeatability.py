"""Two runs agree where the intervals that they state have a value in common."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from lraee_benchmarks.results.model import Interval, Report

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "repeatability.py"


@pytest.fixture(scope="module")
def repeatability() -> ModuleType:
    """``benchmarks/repeatability.py``, which is not part of a package."""
    spec = importlib.util.spec_from_file_location("repeatability", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def moved(report: Report, by_ms: float) -> Report:
    """The same report with every median latency, and its interval, elsewhere."""
    rows = []
    for row in report.rows:
        interval = row.latency.p50_interval_ms
        other = Interval(low=interval.low + by_ms, high=interval.high + by_ms)
        rows.append(dataclasses.replace(row, latency=dataclasses.replace(row.latency, p50_interval_ms=other)))
    return dataclasses.replace(report, rows=tuple(rows))


def test_pairs_are_counted_for_each_row_and_number(
    repeatability: ModuleType, make_report: Callable[..., Report]
) -> None:
    """Intervals are 0.2 ms wide: a tenth apart they overlap, three tenths apart they do not."""
    report = make_report()
    pairs = [(report, moved(report, 0.1)), (report, moved(report, 0.3))]
    agreeing = repeatability.count(pairs)
    assert list(agreeing) == [row.name for row in report.rows]
    assert all(counts == {"p50": 1, "latency saved": 2, "chain / row": 2} for counts in agreeing.values())
    assert repeatability.count_whole(pairs) == 1


def test_numbers_of_the_second_run_are_looked_for_in_the_first_ones_interval(
    repeatability: ModuleType, make_report: Callable[..., Report]
) -> None:
    """The medians of all rows are moved out of it, two of three numbers stay."""
    report = make_report()
    rows = [
        dataclasses.replace(row, latency=dataclasses.replace(row.latency, p50_ms=row.latency.p50_interval_ms.high + 1))
        for row in report.rows
    ]
    assert repeatability.share_foretold([(report, report)]) == 1
    other = dataclasses.replace(report, rows=tuple(rows))
    assert repeatability.share_foretold([(report, other)]) == pytest.approx(2 / 3)
