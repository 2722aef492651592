"""The script that measures gates under other labels, on a few images; its arithmetic is held against the runtime."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lraee_calibration_data import fashion_mnist_test

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "experiments" / "label_sets.py"


def test_every_way_is_measured_on_every_label_set(tmp_path):
    """With the exported labels, all ways that do not move thresholds are one; nothing is saved twice."""
    few = tmp_path / "few.zip"
    with zipfile.ZipFile(fashion_mnist_test()) as every, zipfile.ZipFile(few, "w") as some:
        for name in sorted(name for name in every.namelist() if name.endswith(".png"))[::8]:
            some.writestr(name, every.read(name))
    found = tmp_path / "found.json"
    command = [
        sys.executable,
        str(SCRIPT),
        "--images",
        str(few),
        "--photos",
        "50",
        "--threads",
        "1",
        "--json",
        str(found),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    rows = json.loads(found.read_text())
    ways = {row["way"] for row in rows}
    assert ways == {"as it is", "anchors", "both", "temperature", "refit"}
    assert len(rows) == len({row["labels"] for row in rows}) * len(ways)
    assert all(f"| {row['labels']} |" in done.stdout for row in rows)
    exported = [row for row in rows if row["labels"] == "exported" and row["way"] in ("as it is", "anchors", "both")]
    assert len({(row["points"], row["saved"]) for row in exported}) == 1
    assert exported[0]["exported_points"] == pytest.approx(exported[0]["points"], abs=1e-9)
    assert 0.2 < exported[0]["saved"] < 0.8
