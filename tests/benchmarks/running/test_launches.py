"""A measurement in several launches: rounds divided among processes, intervals that tell of the next run."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from lraee.bundle.folder import Bundle, find_bundle
from lraee.errors import BundleError
from lraee_benchmarks.analysis.intervals import median_interval, ratio_interval
from lraee_benchmarks.benchmark import run_benchmark
from lraee_benchmarks.config import BenchmarkConfig
from lraee_benchmarks.results.model import RowKind, from_json, to_json
from lraee_benchmarks.rows.baseline_files import baseline_path
from lraee_benchmarks.running.in_process import RowPlan
from lraee_benchmarks.running.launches import Launch, MeasuredRows, joined, measure_in_launches
from lraee_benchmarks.running.rounds import Measured, Plan


@pytest.fixture
def bundle_with_a_bad_baseline(tmp_path: Path, shared_constant: onnx.ModelProto) -> Bundle:
    """A copy of the shipped bundle, with a static baseline that no engine can load."""
    bundle = Bundle(Path(shutil.copytree(find_bundle("reference"), tmp_path / "copy.lraee")))
    shared_constant.graph.node[-1].op_type = "NoSuchOperator"
    path = baseline_path(bundle, "static")
    path.parent.mkdir()
    onnx.save(shared_constant, path)
    return bundle


def test_rounds_are_divided_among_launches() -> None:
    """Two processes, three rounds each, of different images; all is as in one process."""
    config = BenchmarkConfig(
        bundle="reference",
        threads=1,
        image_count=6,
        policies=("exit=9",),
        baselines=("graph",),
        isolate=False,
        accuracy=None,
        repeats=6,
        warmup_rounds=1,
        launches=2,
        cold_starts=0,
    )
    report = run_benchmark(config)
    assert (report.settings.launches, report.settings.rounds, report.settings.images) == (2, 6, 6)
    assert [row.name for row in report.rows] == ["exit=9", "full", "graph"]
    assert [peer.name for peer in report.peers] == ["chain", "graph"]
    assert {len(row.samples_ms) for row in report.rows} == {6}
    assert [share.block for share in report.rows[0].exit_shares] == [9]
    assert "--launches 2" in report.settings.command
    assert from_json(to_json(report)) == report


@pytest.mark.parametrize(("isolate", "launches"), [(False, 1), (True, 2)])
def test_a_row_that_cannot_run_says_why_and_the_others_run(
    bundle_with_a_bad_baseline: Bundle, isolate: bool, launches: int
) -> None:
    """In this process, and in workers of launches: one note in one sentence, and nothing else is lost."""
    config = BenchmarkConfig(
        bundle=str(bundle_with_a_bad_baseline.folder),
        threads=1,
        image_count=2,
        policies=("full",),
        baselines=("graph", "static"),
        isolate=isolate,
        repeats=2,
        warmup_rounds=0,
        launches=launches,
        cold_starts=0,
    )
    report = run_benchmark(config)
    assert [row.name for row in report.rows] == ["full", "graph"]
    assert [peer.name for peer in report.peers] == ["chain", "graph"]
    assert {len(row.samples_ms) for row in report.rows} == {2}
    assert (report.settings.launches, report.settings.rounds, report.settings.isolated) == (launches, 2, isolate)
    (note,) = (note for note in report.notes if "could not run" in note)
    assert note.startswith("The static row could not run here: static.onnx: ONNX Runtime")
    assert "NoSuchOperator" in note
    assert "\n" not in note
    assert from_json(to_json(report)) == report


@pytest.mark.parametrize("failing", [0, 1])
def test_a_row_that_fails_in_one_launch_is_left_out_of_all(failing: int) -> None:
    """Columns of the others, and of the floor after them, stay with their rows."""
    names: tuple[tuple[str, RowKind], ...] = (("full", "full"), ("graph", "graph"), ("static", "static"))
    launches = []
    for number in (0, 1):
        there = [name for name in names if name[0] != "graph" or number != failing]
        samples_ms = np.array([[float(column) for column in range(len(there) + 2)]])
        launches.append(
            MeasuredRows(
                names=there,
                peers=(),
                busy_rows=frozenset({"graph", "static"}),
                failed={"graph": "it ended"} if number == failing else {},
                outcomes=[{} for _ in there],
                measured=Measured(samples_ms=samples_ms, batch_of_round=np.array([number])),
            )
        )
    found = joined(launches)
    assert found.names == [name for name in names if name[0] != "graph"]
    assert (found.failed, found.busy_rows) == ({"graph": "it ended"}, {"static"})
    assert found.measured.samples_ms[failing].tolist() == [0, 1, 2, 3]
    assert found.measured.samples_ms[1 - failing].tolist() == [0, 2, 3, 4]
    assert found.measured.launches is not None
    assert found.measured.launches.tolist() == found.measured.batch_of_round.tolist() == [0, 1]


def test_a_launch_that_fails_says_why() -> None:
    """In one line, with what was met."""
    launch = Launch(
        bundle=find_bundle("reference"),
        threads=1,
        thread_pool="session",
        isolated=False,
        rows=RowPlan(chain=("exit=99",), peers=(), floor=()),
        plan=Plan(warmup_rounds=0, rounds=1, min_seconds=0.0, seed=0),
    )
    with pytest.raises(BundleError, match="there is no exit after block 99"):
        measure_in_launches(launch, [np.zeros((1, 28, 28, 3), np.uint8)], 2, lambda share: None)


def test_intervals_over_launches_hold_what_launches_differ_by() -> None:
    """Within a launch all samples are equal: rounds alone would give an interval of no width."""
    samples, launches = np.repeat([10.0, 11.0, 12.0], 50), np.repeat([0, 1, 2], 50)
    interval = median_interval(samples, seed=0, launches=launches)
    factor = np.exp(4.303 * np.sqrt(1 + 1 / 3) * np.log([10, 11, 12]).std(ddof=1))
    assert (interval.low, interval.high) == (pytest.approx(11 / factor), pytest.approx(11 * factor))
    assert ratio_interval(samples, 2 * samples, seed=0, launches=launches).high == 0.5
    one = median_interval(samples, seed=0, launches=np.zeros(150, np.intp))
    assert one == median_interval(samples, seed=0)
