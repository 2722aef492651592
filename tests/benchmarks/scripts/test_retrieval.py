"""The script that measures search, on a few images."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lraee_calibration_data import fashion_mnist_test

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "experiments" / "retrieval.py"


def test_images_and_texts_are_searched_by_every_policy(picked: Callable[..., Path], tmp_path: Path) -> None:
    """Full depth finds itself; a policy that was asked for stands alone, with three kinds of queries."""
    few, found = picked(fashion_mnist_test(), tmp_path / "few.zip", step=10), tmp_path / "found.json"
    command = [sys.executable, str(SCRIPT), "reference", "--images", str(few), "--json", str(found)]
    done = subprocess.run([*command, "--policy", "adaptive=fast"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(found.read_text("utf-8"))
    rows = {(row["images"], row["queries"]): row for row in record["rows"]}
    assert (record["queries"], record["images"]) == (50, 150)
    for queries in ("same policy", "labels"):
        assert rows["full depth, float32", queries]["ten_in_ten"] == 1.0
    early = [row for (images, _), row in rows.items() if images == "adaptive=fast"]
    assert {row["queries"] for row in early} == {"same policy", "full depth", "labels"}
    assert all(0.3 < row["flops_saved"] < 0.9 and 0 < row["ten_in_ten"] < 1 for row in early)
    assert rows["full depth, float32", "labels"]["same_label"] > 0.5
    assert all(f"| {images}, {queries} |" in done.stdout for images, queries in rows)
