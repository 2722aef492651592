"""The script that moves the last bit of tokens, on a few images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments import last_bit
from lraee_calibration_data import fashion_mnist_test


def test_a_neighbour_is_one_step_of_float32_away() -> None:
    """In either direction, for zero and for negative values too; a third of the values stay."""
    values = np.random.default_rng(0).normal(size=30_000).astype(np.float32)
    values[:3] = 0
    moved = last_bit.neighbours(values, np.random.default_rng(1))
    up, down = np.nextafter(values, np.float32(np.inf)), np.nextafter(values, np.float32(-np.inf))
    shares = [np.mean(moved == wanted) for wanted in (values, up, down)]
    assert np.all((moved == values) | (moved == up) | (moved == down))
    assert shares == pytest.approx([1 / 3] * 3, abs=0.02)


def test_answers_with_moved_bits_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The answers of the shipped reference stay on nearly all images, and its embeddings move a little, but not far."""
    record = tmp_path / "found.json"
    words = ["--images", str(fashion_mnist_test()), "--count", "40", "--seeds", "2", "--json", str(record)]
    last_bit.main(["reference", *words])
    found = json.loads(record.read_text("utf-8"))
    assert set(found["runs"]) == {"every block", "the first block"}
    for runs in found["runs"].values():
        assert len(runs) == 2
        assert all(run["same"] >= 38 and 0.99 < run["least_cosine"] < 1 for run in runs)
    assert "| every block | " in capsys.readouterr().out
