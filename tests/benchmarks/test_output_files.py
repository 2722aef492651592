"""Results are written whole or not at all, and a place that takes no file is found before anything is measured."""

from __future__ import annotations

import resource
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lraee.errors import DataError
from lraee_benchmarks.cli import app
from lraee_benchmarks.output_files import temporary_folder, with_block
from lraee_benchmarks.render.html import app as render_app
from lraee_benchmarks.results.model import Report, to_json

FULL_DISK = Path("/dev/full")
NO_NEW_FILES = Path("/proc/report.json")
"""A folder that exists and takes no file, even from the superuser."""


def test_a_page_without_marks_is_refused() -> None:
    """The table would have no place."""
    page = with_block("a <!-- emulated --> b <!-- /emulated --> c", "emulated", "T")
    assert page == "a <!-- emulated -->\n\nT\n\n<!-- /emulated --> c"
    with pytest.raises(ValueError, match="to put the table between"):
        with_block("nothing", "emulated", "T")


@pytest.mark.parametrize("launches", ["1", "2"])
def test_a_temporary_folder_without_room_is_one_line(
    launches: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images go through it to the processes that measure; a limit on files stands for the full disk."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        few = ["--threads", "1", "--repeats", "6", "--launches", launches, "--isolate"]
        few += ["--image-count", "20", "--cold-starts", "0", "--policy", "full", "--baselines", "none", "--no-energy"]
        result = CliRunner().invoke(app, ["reference", *few])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: temporary files cannot be written (no ")
    assert result.stderr.endswith("; set TMPDIR to a folder with room\n")
    assert list(tmp_path.iterdir()) == []


def test_a_temporary_folder_that_cannot_be_made_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where TMPDIR is full or read-only."""
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(DataError, match=r"no temporary folder can be made .*; set TMPDIR"), temporary_folder():
        pass


@pytest.mark.parametrize("option", ["--json", "--trace", "--csv", "--markdown", "--html"])
def test_the_benchmark_does_not_begin_where_it_cannot_write(option: str) -> None:
    """Wrong usage, without a traceback."""
    result = CliRunner().invoke(app, ["reference", option, str(NO_NEW_FILES)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "cannot be written" in " ".join(result.stderr.replace("│", " ").split())


def test_two_results_in_one_file_are_refused(tmp_path: Path) -> None:
    """One of them would be lost, however the path is typed."""
    same = f"{tmp_path}/./same"
    result = CliRunner().invoke(app, ["reference", "--json", str(tmp_path / "same"), "--csv", same])
    assert result.exit_code == 2
    assert "--json and --csv are both" in " ".join(result.stderr.replace("│", " ").split())
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_printed_and_other_files_written_where_one_fails(tmp_path: Path) -> None:
    """A disk that fills up during the measurement does not cost the measurement."""
    few = ["--threads", "1", "--launches", "1", "--repeats", "6", "--warmup", "1", "--image-count", "6"]
    few += ["--cold-starts", "0", "--policy", "full", "--baselines", "none"]
    outputs = ["--json", str(FULL_DISK), "--csv", str(tmp_path / "rows.csv")]
    result = CliRunner().invoke(app, ["reference", *few, *outputs])
    assert result.exit_code == 1
    assert "Latency of 1 image(s) in ms" in result.stdout
    assert (tmp_path / "rows.csv").stat().st_size > 0
    assert result.stderr.startswith("error: /dev/full cannot be written (No space left on device)")
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("output", [str(NO_NEW_FILES), str(FULL_DISK), "no/such/folder/page.html", "/"])
def test_a_page_that_cannot_be_written_is_one_line(
    tmp_path: Path, make_report: Callable[..., Report], output: str
) -> None:
    """With exit status 1."""
    (tmp_path / "a.json").write_text(to_json(make_report()), encoding="utf-8")
    result = CliRunner().invoke(render_app, [str(tmp_path / "a.json"), "-o", output])
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_page_does_not_replace_a_result(tmp_path: Path, make_report: Callable[..., Report]) -> None:
    """A measurement of hours is not lost to a slip of the hand."""
    measured = tmp_path / "a.json"
    measured.write_text(to_json(make_report()), encoding="utf-8")
    result = CliRunner().invoke(render_app, [str(measured), "-o", str(measured)])
    assert result.exit_code == 1
    assert "is one of the results" in result.stderr
    assert measured.read_text(encoding="utf-8") == to_json(make_report())
