"""The scripts that measure Node beside Python and compare their answers run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from javascript_package import Installed

from experiments import app_times, javascript
from lraee_calibration_data import fashion_mnist_test


def test_every_row_is_measured(npm_package: Installed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the shipped reference, in one round."""
    words = ["--rounds", "1", "--calls", "2", "--node", npm_package.node, "--json", str(tmp_path / "times.json")]
    javascript.main(["times", "reference", str(npm_package.home), *words])
    times = json.loads((tmp_path / "times.json").read_text("utf-8"))["times_ms"]
    assert set(times) == {"python chain", "python graph", *javascript.NODE_ROWS}
    assert all(len(calls) == 2 and min(wall for wall, _ in calls) > 0 for calls in times.values())
    assert "| node chain |" in capsys.readouterr().out


def test_answers_are_compared(npm_package: Installed, capsys: pytest.CaptureFixture[str]) -> None:
    """On a few images of the shipped reference."""
    words = ["--images", str(fashion_mnist_test()), "--count", "5", "--node", npm_package.node]
    javascript.main(["answers", "reference", str(npm_package.home), *words])
    printed = capsys.readouterr().out
    assert "5 of 5 the same, cosine at least " in printed
    assert "onnxruntime-node 1." in printed


def test_every_way_to_run_is_timed(npm_package: Installed, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Python, the one file, Node and WebAssembly answer the same images of the reference, at both depths."""
    record = tmp_path / "times.json"
    words = ["--images", str(fashion_mnist_test()), "--count", "4", "--node", npm_package.node, "--json", str(record)]
    app_times.main(["reference", str(npm_package.home), *words])
    found = json.loads(record.read_text("utf-8"))
    names = ("Python", "one file", "Node", "WebAssembly")
    assert set(found["answers"]) == {f"{name}, {at}" for name in names for at in ("balanced", "full")}
    for key, answers in found["answers"].items():
        assert len(answers) == 4
        assert min(took for took, _, _ in answers) > 0
        assert [answer[1:] for answer in answers] == [
            answer[1:] for answer in found["answers"][f"Python, {key.rsplit(', ', 1)[1]}"]
        ]
    assert "| WebAssembly | " in capsys.readouterr().out
