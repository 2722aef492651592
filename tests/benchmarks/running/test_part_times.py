"""Every part is timed as an image meets it, and compared with a run that visits no exit."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

import lraee
from lraee_benchmarks.render.markdown import render_markdown
from lraee_benchmarks.results.model import PartTime, Report
from lraee_benchmarks.running.part_times import measure_parts


@pytest.fixture
def model() -> lraee.Model:
    """The shipped bundle."""
    return lraee.load("reference", threads=1)


BATCHES = [np.zeros((1, 28, 28, 3), np.uint8), np.full((1, 28, 28, 3), 200, np.uint8)]


def test_a_part_takes_the_time_since_the_part_before_it(model: lraee.Model) -> None:
    """By a clock that ticks a millisecond at each look: every part takes one, a run without exits one as well."""
    ticks = itertools.count()
    found = measure_parts(model, BATCHES, rounds=3, clock_ns=lambda: next(ticks) * 1_000_000)
    exits = {exit.block: exit.part for exit in model.manifest.exits}
    wanted = ["stem"]
    for block in range(1, 13):
        wanted += [f"block_{block:02d}", *([exits[block]] if block in exits else [])]
    assert [part.part for part in found] == [*wanted, "tail"]
    assert all(part == PartTime(part=part.part, p50_ms=1.0, share_of_full=1.0) for part in found)


def test_parts_add_up_to_a_run(model: lraee.Model) -> None:
    """Stem, blocks and tail together take what a run takes; a busy machine interrupts the longer run more often."""
    found = measure_parts(model, BATCHES, rounds=40)
    whole = sum(part.share_of_full for part in found if not part.part.startswith("exit"))
    assert 0 < whole < 1.5
    assert all(part.p50_ms > 0 for part in found)


def test_parts_are_in_the_report_where_they_were_measured(make_report: Callable[..., Report]) -> None:
    """Exits with their share of full depth, blocks as a range."""
    parts = [("stem", 0.4), ("block_01", 1.25), ("block_02", 1.5), ("exit_02", 0.1), ("tail", 0.2)]
    timed = tuple(PartTime(part=name, p50_ms=ms, share_of_full=ms / 20) for name, ms in parts)
    shown = render_markdown(make_report(parts=timed))
    assert "stem 0.400 ms (2.00%), blocks 1.250 to 1.500 ms, exit_02 0.100 ms (0.50%), tail 0.200 ms (1.00%)" in shown
    assert "Parts" not in render_markdown(make_report())
