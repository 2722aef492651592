"""The service under load, for seconds: rates below, at and above its capacity, odd requests, and a stop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
SCRIPT = ROOT / "benchmarks" / "experiments" / "service" / "soak.py"


def test_a_service_under_load_keeps_its_promises_of_safety(tmp_path: Path) -> None:
    """No fault, nothing lost at the stop, nothing left open, no memory lost; `make soak-serve` also looks at speed."""
    record_file = tmp_path / "soak.json"
    options = [
        "--seconds",
        "3",
        "--odd",
        "200",
        "--image-count",
        "8",
        "--body-time",
        "0.5",
        "--safety",
        "--json",
        str(record_file),
    ]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "reference", *options], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(record_file.read_text("utf-8"))
    assert set(record["holds"]) == set(record["bounds"])
    phases = {(phase["policy"], phase["name"]): phase for phase in record["phases"]}
    assert phases["", "low"]["statuses"]["200"] > 0
    assert record["library_p50_ms"] > 0
    above = phases["", "above"]
    assert above["statuses"]["200"] > 0
    assert above["asked_per_s"] > 1.5 * phases["", "capacity"]["answered_per_s"]
    assert {phase["lost"] for phase in record["phases"]} == {0}
    assert sum(record["odd_requests"].values()) >= 200
    assert {int(status) for status in record["odd_requests"]} <= {0, 200, 400, 404, 405, 408, 413, 415, 422, 429, 503}
