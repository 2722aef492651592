"""The script that measures gates under other labels, on a few images."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

from lraee_calibration_data import fashion_mnist_test

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "experiments" / "label_sets.py"


def test_every_label_set_is_measured(tmp_path):
    """The exported labels stand next to themselves, and labels that overlap save nothing."""
    few = tmp_path / "few.zip"
    with zipfile.ZipFile(fashion_mnist_test()) as every, zipfile.ZipFile(few, "w") as some:
        for name in sorted(name for name in every.namelist() if name.endswith(".png"))[::8]:
            some.writestr(name, every.read(name))
    found = tmp_path / "found.json"
    command = [sys.executable, str(SCRIPT), "--images", str(few), "--threads", "1", "--json", str(found)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    rows = {row["labels"]: row for row in json.loads(found.read_text())}
    assert len(rows) == 11
    assert all(f"| {labels} |" in done.stdout for labels in rows)
    exported, same = rows["exported"], rows["synonyms"]
    assert exported["exported_points"] == exported["points"]
    assert same["images"] == exported["images"] > rows["tops only"]["images"]
    assert 0.2 < exported["saved"] < 0.8
    assert rows["names and synonyms together"]["saved"] < 0.1
