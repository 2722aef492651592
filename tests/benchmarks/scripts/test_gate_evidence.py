"""The script that compares gates by what they read, on a few images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lraee_calibration_data import fashion_mnist_test

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "experiments" / "gate_evidence.py"


def test_five_kinds_of_gate_are_fitted_and_judged_on_other_images(picked: Callable[..., Path], tmp_path: Path) -> None:
    """Larger budgets never save less where they are chosen; every gate of the reference saves something."""
    few, found = picked(fashion_mnist_test(), tmp_path / "few.zip", step=5), tmp_path / "found.json"
    command = [sys.executable, str(SCRIPT), "reference", "--images", str(few), "--divisions", "1", "--json", str(found)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(found.read_text("utf-8"))
    assert record["images"] == 400
    assert len(record["rows"]) == 5
    for name, cells in record["rows"].items():
        assert f"| {name} |" in done.stdout
        assert len(cells) == len(record["budgets"])
        assert all(0.3 < saved < 0.75 and -8 < lost < 2 and 0 < error < 3 for saved, lost, error in cells)
        assert cells[-1][0] >= cells[0][0]
