"""Ratios of a measurement are compared with the recorded ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lraee_benchmarks.results.model import Floor, PartTime, Report, to_json
from regression import speed_ratios


@pytest.fixture(autouse=True)
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for what ``benchmarks/regression/speed_ratios.py`` records."""
    folder = tmp_path / "records"
    folder.mkdir()
    monkeypatch.setattr(speed_ratios, "FOLDER", folder)
    return folder


def run(monkeypatch: pytest.MonkeyPatch, what: str, folder: Path) -> int:
    """Run the command and give its exit status."""
    monkeypatch.setattr("sys.argv", ["speed_ratios.py", what, str(folder)])
    return speed_ratios.main()


def test_a_slower_chain_is_told_and_fails(
    records: Path,
    make_report: Callable[..., Report],
    floor: Floor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Recorded, the same again passes; a chain a fifth nearer to nothing else fails, and says by which ratio."""
    out = tmp_path / "out"
    out.mkdir()
    parts = (PartTime(part="exit_08", p50_ms=0.2, share_of_full=0.01),)
    report = make_report(floor=floor, parts=parts)
    (out / "a.json").write_text(to_json(report))
    assert run(monkeypatch, "compare", out) == 0
    assert "nothing is recorded" in capsys.readouterr().out
    assert run(monkeypatch, "record", out) == 0
    (record,) = records.iterdir()
    assert record.name == "aarch64-dotprod-4cores.json"
    slow_exit = make_report(floor=floor, parts=(dataclasses.replace(parts[0], share_of_full=0.016),))
    moved = list(speed_ratios.moved(speed_ratios.ratios_of(report), speed_ratios.ratios_of(slow_exit)))
    assert [line.split()[0] for line in moved if "exit_08" in line] == ["SLOWER"]
    assert any(line.startswith("gone") for line in speed_ratios.moved(speed_ratios.ratios_of(report), {}))
    names = set(json.loads(record.read_text())["ratios"])
    assert "ViT-B-32, 4 threads, batch 1: chain / bare products" in names
    assert "ViT-B-32, 4 threads, batch 1: exit_08 / full depth" in names
    assert run(monkeypatch, "compare", out) == 0
    ratio = dataclasses.replace(floor.chain_to_gemm, value=2.0, interval=dataclasses.replace(
        floor.chain_to_gemm.interval, low=1.9, high=2.1))  # fmt: skip
    slow = make_report(floor=dataclasses.replace(floor, chain_to_gemm=ratio), parts=parts)
    (out / "a.json").write_text(to_json(slow))
    capsys.readouterr()
    assert run(monkeypatch, "compare", out) == 1
    slower = [line for line in capsys.readouterr().out.splitlines() if line.startswith("SLOWER")]
    assert len(slower) == 1
    assert "chain / bare products: 2.000 [1.900, 2.100], recorded 1.250" in slower[0]


def test_a_folder_without_reports_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that makes some."""
    with pytest.raises(SystemExit):
        run(monkeypatch, "compare", tmp_path)
