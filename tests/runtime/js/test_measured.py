"""The script that measures Node beside Python runs, and gives a ratio for each row."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from javascript import Installed

from experiments import javascript


def test_every_row_is_measured(package: Installed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the shipped reference, in one round."""
    words = ["--rounds", "1", "--calls", "2", "--node", package.node, "--json", str(tmp_path / "times.json")]
    javascript.main(["reference", str(package.home), *words])
    times = json.loads((tmp_path / "times.json").read_text("utf-8"))["times_ms"]
    assert set(times) == {"python chain", "python graph", *javascript.NODE_ROWS}
    assert all(len(calls) == 2 and min(calls) > 0 for calls in times.values())
    assert "| node chain |" in capsys.readouterr().out
