"""Two workers of a real cluster on this machine: what they write is whole, also when one of them or the driver dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from lraee.errors import ExportError
from lraee_toolchain.ray import Settings, ShardReport, classify, embed, features
from lraee_toolchain.ray.cluster import _folder as cluster_folder
from lraee_toolchain.ray.cluster import cluster
from lraee_toolchain.ray.output import opened_output
from lraee_toolchain.ray.run import prepare
from lraee_toolchain.ray.worker import compute_shard, make_work, open_same_source

from .conftest import Pictures

SETTINGS = Settings(shard_size=4, workers=2, threads=1, batch_size=4)
COMMAND = [sys.executable, "-m", "lraee_toolchain.ray", "embed", "reference"]
SECONDS_AT_MOST = 120


@pytest.fixture(scope="module")
def two_cores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One cluster for the tests of this module; runs use the one that their program has."""
    with cluster(tmp_path_factory.mktemp("cluster"), cores=2, address=None):
        yield


def undisturbed(pictures: Pictures, out: Path, settings: Settings = SETTINGS) -> dict[str, bytes]:
    """The files that one process writes without Ray."""
    job, record = prepare("embed", "reference", pictures.zip, out, settings)
    with opened_output(out, record, overwrite=False) as missing:
        source, work = open_same_source(job), make_work(job)
        for shard in missing:
            compute_shard(job, source, work, shard.number)
    return files(out)


def files(out: Path) -> dict[str, bytes]:
    """Content of every file of an output, which has nothing half written."""
    assert not list(out.glob(".writing-*"))
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name != ".lock"}


@pytest.mark.usefixtures("two_cores")
def test_a_worker_that_is_killed_loses_nothing_and_repeats_nothing(pictures: Pictures, tmp_path: Path) -> None:
    """One of two dies by SIGKILL in the middle; every file equals that of a process which nobody disturbed."""
    killed: list[int] = []

    def kill(report: ShardReport) -> None:
        if not killed:
            killed.append(report.worker)
            os.kill(report.worker, signal.SIGKILL)

    summary = embed("reference", pictures.zip, tmp_path / "out", SETTINGS, on_shard=kill)
    assert killed
    assert (summary.images, summary.shards, summary.found, summary.damaged) == (40, 10, 0, 1)
    assert files(tmp_path / "out") == undisturbed(pictures, tmp_path / "alone")
    assert pq.read_table(tmp_path / "out").column("position").to_pylist() == list(range(40))


@pytest.mark.usefixtures("two_cores")
def test_two_workers_share_the_shards_and_a_rerun_computes_none(pictures: Pictures, tmp_path: Path) -> None:
    """Each loads its model once; the second run starts nothing."""
    reports: list[ShardReport] = []
    settings = replace(SETTINGS, policy="exit=6")
    first = classify("reference", pictures.parquet, tmp_path / "out", settings, on_shard=reports.append)
    assert sorted(report.shard for report in reports) == list(range(10))
    assert 1 <= len({report.worker for report in reports}) <= 2
    assert (first.computed, first.damaged, first.workers, first.threads) == (40, 1, 2, 1)
    assert first.read_bytes == sum(map(len, pictures.contents))
    before = files(tmp_path / "out")
    again = classify("reference", pictures.parquet, tmp_path / "out", settings)
    assert (again.found, again.computed, again.seconds) == (10, 0, 0)
    assert files(tmp_path / "out") == before


@pytest.mark.usefixtures("two_cores")
def test_an_error_of_a_worker_ends_the_run_in_one_line(pictures: Pictures, tmp_path: Path) -> None:
    """A note of earlier deaths stands for a shard in which every worker dies; other shards are kept."""
    out = tmp_path / "out"

    def spoil(report: ShardReport) -> None:
        for number in set(range(10)) - {report.shard}:
            (out / f".writing-{number:06d}-tries").write_text("." * 5)

    with pytest.raises(ExportError, match=r"shard \d was not computed: .* workers died in images"):
        features("reference", pictures.zip, out, SETTINGS, on_shard=spoil)
    assert list(out.glob("shard-*.parquet"))


@pytest.mark.usefixtures("two_cores")
def test_more_workers_than_the_cluster_has_are_refused(pictures: Pictures, tmp_path: Path) -> None:
    """Ray would wait for them without end."""
    with pytest.raises(ExportError, match="CPUs for 2 workers of 1 threads, wanted 3"):
        embed("reference", pictures.zip, tmp_path / "out", replace(SETTINGS, workers=3))


@pytest.mark.usefixtures("two_cores")
def test_a_driver_that_is_killed_leaves_whole_shards_and_a_rerun_adds_the_others(
    pictures: Pictures, tmp_path: Path
) -> None:
    """The command dies by SIGKILL after its first shard, and its workers go with it; a rerun keeps what is there."""
    out = tmp_path / "out"
    command = [*COMMAND, str(pictures.zip), "-o", str(out), "--workers", "1", "--threads", "1"]
    command += ["--shard-size", "4", "--batch-size", "4"]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    until = time.monotonic() + SECONDS_AT_MOST
    while not list(out.glob("shard-*.parquet")):
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.01)
    driver.kill()
    driver.communicate(timeout=SECONDS_AT_MOST)
    there = {path.name: path.stat().st_mtime_ns for path in out.glob("shard-*.parquet")}
    assert 1 <= len(there) < 10
    summary = embed("reference", pictures.zip, out, SETTINGS)
    assert summary.found >= len(there)
    assert summary.computed == len(pictures.contents) - 4 * summary.found
    assert files(out) == undisturbed(pictures, tmp_path / "alone")
    assert {name: (out / name).stat().st_mtime_ns for name in there} == there


def test_a_long_folder_of_temporary_files_is_not_used_for_sockets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their paths would be longer than the system allows; where no other folder will do, one line says so."""
    long = tmp_path / ("long" * 20)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    assert cluster_folder(tmp_path).parent == Path("/tmp")
    monkeypatch.setattr("lraee_toolchain.ray.cluster.SHORT_ROOT", str(tmp_path / "missing"))
    with pytest.raises(ExportError, match=r"at most \d+ bytes, and the folder of temporary files is .*set TMPDIR"):
        cluster_folder(tmp_path)
