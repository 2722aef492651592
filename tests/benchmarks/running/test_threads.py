"""Benchmarks show the threads that run, and commands say in one line where they are fewer than asked for."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

import lraee.cli
import lraee_benchmarks.cli
import lraee_toolchain.cli
from lraee.errors import SettingsError, ThreadsWarning
from lraee.ort import limits, threads
from lraee_benchmarks.benchmark import run_benchmark
from lraee_benchmarks.config import BenchmarkConfig
from lraee_benchmarks.rows.onnxruntime_row import check_threads_alike

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "experiments" / "threads.py"


def write(root: Path, files: dict[str, str]) -> None:
    """Files below a root folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")


@pytest.mark.parametrize("cli", [lraee.cli, lraee_benchmarks.cli, lraee_toolchain.cli])
def test_every_command_prints_warnings_of_threads_as_one_line(
    cli: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where all warnings are errors, as here."""
    monkeypatch.setattr(cli, "app", lambda **_: warnings.warn("fewer threads", ThreadsWarning, stacklevel=1))
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == "warning: fewer threads\n"


def test_a_benchmark_shows_the_threads_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those asked for; and a row that gets fewer than the others is refused."""
    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/pids.max": "64",
        "sys/fs/cgroup/pids.current": "5",
    }
    write(tmp_path, files)
    monkeypatch.setattr(threads, "task_limit", lambda _=None, *, wanted: limits.task_limit(tmp_path, wanted=wanted))
    config = BenchmarkConfig(
        bundle="reference",
        threads=4,
        policies=("full",),
        baselines=(),
        repeats=6,
        image_count=6,
        warmup_rounds=1,
        launches=1,
        cold_starts=0,
        energy=False,
    )
    with pytest.warns(ThreadsWarning):
        report = run_benchmark(config)
    assert (report.settings.threads, report.rows[0].name) == (3, "full")
    assert [peer.threads for peer in report.peers] == [3]
    with pytest.raises(SettingsError, match=r"the row graph got 2 of 3 threads, .* ask for fewer --threads"):
        check_threads_alike("graph", 2, 3)


@pytest.mark.skipif(sys.platform == "win32", reason="neighbours are stopped by signals")
def test_every_way_to_wait_is_measured_alone_and_beside_a_neighbour(tmp_path: Path) -> None:
    """A row for each number of threads and way, the default marked, and no neighbour is left."""
    record = tmp_path / "threads.json"
    command = [sys.executable, str(SCRIPT), "reference", "--threads", "1,2", "--seconds", "0", "--json", str(record)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split("|")[1:3] for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [[cell.strip() for cell in line] for line in lines[2:]] == [
        ["1 (default)", "sleep"],
        ["2", "sleep"],
        ["2", "spin"],
    ]
    rows = json.loads(record.read_text("utf-8"))["bundles"]["reference.lraee"]
    assert [(row["threads"], row["spinning"], row["is_default"]) for row in rows] == [
        (1, False, True),
        (2, False, False),
        (2, True, False),
    ]
    for row in rows:
        for surrounding in ("alone_ms", "beside_ms"):
            assert 0 < row[surrounding]["p50"] <= row[surrounding]["p95"]
            assert row[surrounding]["cpu"] > 0


def test_torch_follows_a_quota_while_a_tower_is_exported(tmp_path: Path) -> None:
    """It counts the cores alone; fewer threads than the quota allows stay as they are."""
    import torch

    files = {
        "proc/self/cgroup": "0::/\n",
        "proc/self/mountinfo": "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/cpu.max": "50000 100000",
    }
    write(tmp_path, files)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        lraee_toolchain.cli._bound_torch(tmp_path)
        assert torch.get_num_threads() == 1
        lraee_toolchain.cli._bound_torch(tmp_path / "no quota")
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
