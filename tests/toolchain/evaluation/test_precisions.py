"""Exporting without exits, and what every precision costs at full depth."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lraee
from lraee.bundle.strict_json import read_json
from lraee.errors import ExportError
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.evaluation.metrics import Metrics
from lraee_toolchain.export import ExportResult, export


@pytest.fixture(scope="module")
def quantized(with_tables: ExportConfig) -> ExportResult:
    """The reference with outlier channels, strongly quantized, without exits, compared with every other precision."""
    changes: dict[str, Any] = {"exits": "none", "promise": None, "ablations": False, "precisions": True}
    return export(dataclasses.replace(with_tables, out=with_tables.out.with_name("plain.lraee"), **changes))


@pytest.fixture(scope="module")
def metrics(quantized: ExportResult) -> Metrics:
    """``metrics.json``."""
    return read_json(Metrics, quantized.report / "metrics.json")


def test_a_bundle_without_exits_runs_to_the_end(quantized: ExportResult, metrics: Metrics) -> None:
    """No exit, no operating point; the default policy is full depth."""
    model = lraee.load(quantized.bundle, threads=1)
    assert model.manifest.exits == model.manifest.operating_points == ()
    assert model.policy == lraee.Full()
    assert metrics.evaluation is not None
    assert [row.kind for row in metrics.evaluation.rows] == ["full"]


def test_strong_repairs_what_outlier_channels_break_in_naive(metrics: Metrics) -> None:
    """200 images: naive loses at least 20 points, strong at most 2 (the recorded evidence has 5,000 images)."""
    assert metrics.precisions is not None
    assert metrics.evaluation is not None
    right = {row.precision: row.accuracy.mean for row in metrics.precisions.rows}
    assert right["FP32"] > 0.85
    assert right["naive INT8"] < right["FP32"] - 0.20
    assert right["strong INT8"] > right["FP32"] - 0.02
    evaluated = metrics.evaluation.full.accuracy.mean
    assert evaluated == pytest.approx(right["strong INT8"], abs=1 / 200 + 1e-9)  # one image between two levels


def test_the_report_tells_precisions_and_noise_apart(quantized: ExportResult) -> None:
    """A table of every precision, and a file of the noise of every block for each."""
    assert "### Every precision at full depth" in (quantized.report / "report.md").read_text()
    assert "Every precision at full depth" in (quantized.report / "report.html").read_text()
    for name in ("dynamic", "naive", "strong"):
        lines = (quantized.report / f"noise-{name}-int8.csv").read_text().splitlines()
        assert len(lines) == 13, name
        assert lines[0].startswith("block,delta_nat,delta_quant")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exits": "none", "promise": 1.0}, "--exits none leaves --promise nothing to do"),
        ({"exits": "none", "ablations": True}, "--exits none leaves --ablations nothing to do"),
        ({"precisions": True}, "--precisions measures accuracy; give labelled images with --evaluate"),
        (
            {"precisions": True, "precision": "fp32", "evaluate": Path("test.zip")},
            "--precisions compares INT8 with FP32",
        ),
    ],
)
def test_contradictions_are_refused_before_any_work(
    small_config: Callable[..., ExportConfig], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """Nothing is written."""
    with pytest.raises(ExportError, match=message):
        export(small_config(tmp_path / "x.lraee", **changes))
    assert list(tmp_path.iterdir()) == []
