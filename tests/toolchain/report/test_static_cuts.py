"""Whether the report says of early exit that it beats a tower that is cut, or that it does not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import lraee
from lraee.bundle.manifest import Manifest
from lraee_benchmarks.analysis.intervals import Estimate
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.evaluation.metrics import Evaluation, Metrics, PolicyRow, Quadrants
from lraee_toolchain.report.findings import Findings
from lraee_toolchain.report.static_cuts import cuts_text

NOTHING = Estimate(mean=0.0, low=0.0, high=0.0)
ROW = PolicyRow(
    kind="adaptive", point="balanced", block=None, accuracy=dataclasses.replace(NOTHING, mean=0.9),
    difference_to_full=NOTHING, difference_to_float=NOTHING, flops=1.0, flops_saved=0.5, exit_shares=(),
    quadrants=Quadrants(both_right=1, rescue=0, loss=0, both_wrong=0),
)  # fmt: skip
METRICS = Metrics(
    parity=(), supervision="labels", noise={}, images={}, skipped={}, passed_over={}, notices=(),
    evaluation=None, precisions=None, ablations=None, latency=None,
)  # fmt: skip


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Of the shipped bundle; its default operating point is `balanced`."""
    return lraee.load("reference", threads=1).manifest


def found(manifest: Manifest, *cuts: tuple[int, float, float], saved: float = 0.5) -> Findings:
    """Early exit with 90 % and some FLOPs saved, and cuts given as block, accuracy and FLOPs saved."""
    routed = dataclasses.replace(ROW, flops_saved=saved)
    cut = dataclasses.replace(ROW, kind="exit", point=None)
    rows = [
        dataclasses.replace(cut, block=b, accuracy=dataclasses.replace(NOTHING, mean=a), flops_saved=s)
        for b, a, s in cuts
    ]
    evaluation = Evaluation(images=100, full_flops=1, float_accuracy=NOTHING, rows=(routed, *rows))
    config = ExportConfig(model="reference", out=Path("a.lraee"))
    return Findings(manifest=manifest, metrics=dataclasses.replace(METRICS, evaluation=evaluation), config=config)


def test_it_wins_where_equal_cuts_save_less(manifest: Manifest) -> None:
    """The cheapest of those that are as accurate is named."""
    text = cuts_text(found(manifest, (4, 0.8, 0.64), (9, 0.9, 0.2), (11, 0.91, 0.02)))
    assert text is not None
    assert "beats cutting" in text
    assert "after block 9 and saves 20.0 %" in text


def test_it_loses_where_an_equal_cut_saves_as_much(manifest: Manifest) -> None:
    """That is said in capitals."""
    text = cuts_text(found(manifest, (4, 0.8, 0.64), (6, 0.9, 0.5)))
    assert text is not None
    assert "does NOT beat" in text


def test_it_wins_where_no_cut_is_as_accurate(manifest: Manifest) -> None:
    """The best cut is told with what it costs."""
    text = cuts_text(found(manifest, (4, 0.8, 0.64), (9, 0.89, 0.2)))
    assert text is not None
    assert "no cut is as accurate" in text
    assert "after block 9, reaches 89.00 %" in text


def test_there_is_nothing_to_say_without_a_comparison(manifest: Manifest) -> None:
    """No evaluation, no exits, no default point, or one that saves nothing."""
    assert cuts_text(dataclasses.replace(found(manifest), metrics=METRICS)) is None
    assert cuts_text(found(manifest)) is None
    assert cuts_text(found(manifest, (4, 0.8, 0.64), saved=0.0)) is None
    assert cuts_text(found(dataclasses.replace(manifest, default_point=None), (4, 0.8, 0.6))) is None
