"""The script that compares bundles of several seeds with other bundles, on a few images of the shipped reference."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments import seeds
from lraee_calibration_data import fashion_mnist_test


def test_bundles_are_compared_image_by_image(
    picked: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Twice the same bundle is as one; full depth against itself differs nowhere, and early exits save FLOPs."""
    few, record = picked(fashion_mnist_test(), tmp_path / "few.zip", step=10), tmp_path / "found.json"
    words = ["--images", str(few), "--to", "reference", "--json", str(record)]
    seeds.main(["reference", "reference", *words])
    found = json.loads(record.read_text("utf-8"))
    assert found["images"] == 200
    assert found["per_seed"][0] == found["per_seed"][1] == pytest.approx(found["accuracy"])
    assert all(0.3 < saved < 0.8 for saved in found["flops_saved"])
    own, other = found["rows"]
    assert own["difference"] == other["difference"]
    assert own["difference"]["low"] <= own["difference"]["mean"] <= own["difference"]["high"]
    assert "| own full depth | " in capsys.readouterr().out
    seeds.main(["reference", *words, "--policy", "full"])
    nothing = {"mean": 0, "low": 0, "high": 0}
    assert [row["difference"] for row in json.loads(record.read_text("utf-8"))["rows"]] == [nothing] * 2
