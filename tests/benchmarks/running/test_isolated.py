"""Rows in processes of their own give what they give in one process, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

import lraee
from lraee.bundle.folder import Bundle
from lraee.errors import BundleError
from lraee_benchmarks.benchmark import run_benchmark
from lraee_benchmarks.config import BenchmarkConfig
from lraee_benchmarks.images import load_sample
from lraee_benchmarks.results.model import from_json, to_json
from lraee_benchmarks.rows.answers import LabelledSource
from lraee_benchmarks.running.in_process import LocalRows, RowPlan
from lraee_benchmarks.running.isolated import cores_for, isolated_rows
from lraee_benchmarks.running.worker import wait_until_idle
from lraee_calibration_data import fashion_mnist_test, open_dataset

PLAN = RowPlan(chain=("exit=5", "full"), peers=("graph", "dynamic"), floor=("gemm", "read"))


@pytest.fixture(scope="module")
def model(with_baselines: Bundle) -> lraee.Model:
    """The shipped bundle with its baselines."""
    return lraee.load(with_baselines.folder, threads=1)


def processes() -> set[str]:
    """Workers that this process has started and that have not ended."""
    found = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:  # it has ended meanwhile
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z":
            found.add(status.parent.name)
    return found


def test_workers_answer_what_one_process_answers(model: lraee.Model, tmp_path: Path) -> None:
    """Names, peers, outcomes and accuracy; and afterwards no process is left."""
    batches = load_sample("fashion-mnist", model.manifest.preprocessing, count=2, batch=1, seed=0).batches
    dataset = open_dataset(fashion_mnist_test())
    for number, label in enumerate(model.labels[:2]):  # whether the labels are true does not matter here
        (tmp_path / "labelled" / label).mkdir(parents=True)
        (tmp_path / "labelled" / label / f"{number}.png").write_bytes(dataset.read_bytes(number))
    source = LabelledSource(source=str(tmp_path / "labelled"))
    local = LocalRows(PLAN, model, batches)
    before = processes()
    with isolated_rows(PLAN, model, batches) as isolated:
        assert len(processes() - before) == 6
        assert (
            isolated.names
            == local.names
            == [("exit=5", "exit"), ("full", "full"), ("graph", "graph"), ("dynamic", "dynamic")]
        )
        assert (
            [peer.name for peer in isolated.peers]
            == [peer.name for peer in local.peers]
            == ["chain", "graph", "dynamic"]
        )
        for rows in (isolated, local):
            assert len(rows.measures) == 6
            assert all(0 < measure(batch) < 10_000 for measure in rows.measures for batch in (0, 1))
        for there, here in zip(isolated.outcomes(), local.outcomes(), strict=True):
            assert sorted(there) == sorted(here) == [0, 1]
            for batch, outcome in here.items():
                np.testing.assert_allclose(there[batch].probabilities, outcome.probabilities, atol=1e-5)
                assert there[batch].flops.tolist() == outcome.flops.tolist()
                assert there[batch].exit_block.tolist() == outcome.exit_block.tolist()
        right = isolated.right(source, lambda share: None)
        np.testing.assert_array_equal(right.right, local.right(source, lambda share: None).right)
        assert isolated.busy_rows == set()
    assert processes() == before


def test_a_row_that_cannot_be_opened_is_one_error(model: lraee.Model) -> None:
    """In the words of the worker, and the workers that had started are ended."""
    batches = load_sample("fashion-mnist", model.manifest.preprocessing, count=1, batch=1, seed=0).batches
    before = processes()
    plan = RowPlan(chain=("full", "exit=99"), peers=(), floor=())
    with pytest.raises(BundleError, match="there is no exit after block 99"), isolated_rows(plan, model, batches):
        pass
    assert processes() == before


def test_a_worker_that_is_killed_is_one_error(model: lraee.Model) -> None:
    """As by the system where memory is short: nothing waits for it, and the other worker is ended."""
    batches = load_sample("fashion-mnist", model.manifest.preprocessing, count=1, batch=1, seed=0).batches
    before = processes()
    with isolated_rows(RowPlan(chain=("full",), peers=(), floor=("read",)), model, batches) as isolated:
        (worker, _) = sorted(processes() - before, key=int)
        os.kill(int(worker), signal.SIGKILL)
        with pytest.raises(BundleError, match="the process of the row full ended with status -9: no message"):
            isolated.measures[0](0)
        assert isolated.measures[1](0) > 0
    assert processes() == before


def test_a_measurement_with_peers_isolates_by_itself(with_baselines: Bundle) -> None:
    """From the configuration to the report, the floor with it."""
    config = BenchmarkConfig(
        bundle=str(with_baselines.folder),
        threads=1,
        policies=("full",),
        baselines=("static",),
        floor=True,
        repeats=4,
        warmup_rounds=1,
        image_count=2,
        cold_starts=0,
    )
    report = run_benchmark(config)
    assert report.settings.isolated
    assert [row.name for row in report.rows] == ["full", "static"]
    assert [peer.name for peer in report.peers] == ["chain", "static"]
    assert report.floor is not None
    assert len(report.floor.gemm_samples_ms) == len(report.rows[0].samples_ms) == 4
    assert report.floor.chain_to_gemm.value == pytest.approx(
        np.median(report.rows[0].samples_ms) / np.median(report.floor.gemm_samples_ms)
    )
    assert from_json(to_json(report)) == report


def test_threads_that_spin_are_waited_for() -> None:
    """Until they stop, or the limit is reached; on a busy machine a spinning thread may get no time in one probe."""
    stop = threading.Event()
    spinning = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    spinning.start()
    try:
        assert any(not wait_until_idle(limit_s=0.05) for _ in range(10))
        threading.Timer(0.05, stop.set).start()
        spinning.join()
        assert wait_until_idle(limit_s=5.0)
    finally:
        stop.set()
        spinning.join()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system does not pin")
def test_workers_share_as_many_cores_as_threads() -> None:
    """All of them where there are no more."""
    allowed = sorted(os.sched_getaffinity(0))
    assert len(cores_for(1)) == 1
    assert cores_for(len(allowed)) == cores_for(99) == tuple(allowed)
