"""Scenarios on the shipped bundle: all images at once, under deadlines, in given shares; and the trace."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import lraee
from lraee.errors import PolicyError
from lraee.policies.spec import parse_policy
from lraee_benchmarks.benchmark import run_benchmark
from lraee_benchmarks.config import BenchmarkConfig
from lraee_benchmarks.results.model import from_json, to_json
from lraee_benchmarks.running.in_process import LocalRows, RowPlan
from lraee_calibration_data import fashion_mnist_sample

FEW = {"bundle": "reference", "threads": 1, "cold_starts": 0, "warmup_rounds": 1}


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """(40, 28, 28, 3) uint8."""
    return np.repeat(fashion_mnist_sample()[:40, :, :, None], 3, axis=3)


def test_offline_a_sample_is_all_images(pixels: np.ndarray) -> None:
    """Rows of either kind take them in batches and give what single images give, in their order."""
    model = lraee.load("reference", threads=1)
    plan = RowPlan(chain=("full", "adaptive=balanced"), peers=("graph",), floor=(), stream=16)
    rows = LocalRows(plan, model, [pixels])
    for measure in rows.measures:
        assert measure(0) > 0
    for (name, _), outcomes in zip(rows.names, rows.outcomes(), strict=True):
        policy = parse_policy(name) if name != "graph" else lraee.Full()
        single = [model.run_pixels(image[None], policy=policy) for image in pixels]
        np.testing.assert_array_equal(outcomes[0].exit_block, np.concatenate([one.exit_block for one in single]))
        wanted = np.concatenate([one.probabilities for one in single])
        np.testing.assert_allclose(outcomes[0].probabilities, wanted, atol=2e-4)


def test_offline_throughput_is_of_all_images() -> None:
    """And is read back from JSON."""
    config = BenchmarkConfig(**FEW, scenario="offline", batch=8, image_count=32, repeats=2, policies=("adaptive",))
    report = run_benchmark(config)
    assert (report.settings.images_per_sample, report.settings.images, report.settings.batch) == (32, 32, 8)
    full = report.row("full")
    assert full is not None
    assert full.images_per_second == pytest.approx(32_000 / full.latency.mean_ms)
    assert full.share_weighted_ms is None
    assert "--scenario offline" in report.settings.command
    assert from_json(to_json(report)) == report


@pytest.mark.parametrize(
    ("change", "says"),
    [({"policies": ("deadline=5",)}, "deadline"), ({"floor": True}, "one batch"), ({"parts": True}, "one batch")],
)
def test_offline_refuses_what_is_about_one_batch(with_baselines, change: dict, says: str) -> None:
    """Before anything is measured."""
    config = BenchmarkConfig(**{**FEW, "bundle": str(with_baselines.folder)}, scenario="offline", **change)
    with pytest.raises(PolicyError, match=says):
        run_benchmark(config)


def test_deadlines_are_shares_of_full_depth() -> None:
    """Four of them unless they are given; each says how late it was."""
    report = run_benchmark(BenchmarkConfig(**FEW, scenario="deadline", image_count=8, repeats=8, baselines=()))
    late = [row.lateness for row in report.rows if row.kind == "deadline"]
    assert len(late) == 4
    assert all(one is not None and 0 <= one.late <= 1 and one.p99_ms <= one.most_ms for one in late)
    assert [one.ms for one in late if one] == sorted(one.ms for one in late if one)


def test_replayed_shares_are_measured() -> None:
    """40 % behind the first exit, the rest to the end: a depth of its own each."""
    block = lraee.load("reference", threads=1).manifest.exits[0].block
    config = BenchmarkConfig(**FEW, image_count=20, repeats=100, policies=(f"replay={block}:.4",), baselines=())
    row = run_benchmark(config).rows[0]
    assert row.kind == "replay"
    assert row.exit_shares[0].share == pytest.approx(0.4, abs=0.03)
    assert row.share_weighted_ms is not None
    early, full = (share.p50_ms for share in row.exit_shares)
    assert early is not None
    assert full is not None
    assert early < row.share_weighted_ms < full


def test_a_trace_shows_every_part_of_every_policy(tmp_path: Path) -> None:
    """Parts lie within their image, one after the other; reading an image is there too."""
    path = tmp_path / "trace.json"
    config = BenchmarkConfig(**FEW, image_count=4, repeats=2, policies=("exit=9",), baselines=(), trace=path)
    run_benchmark(config)
    events = json.loads(path.read_text())["traceEvents"]
    tracks = {event["tid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert list(tracks.values()) == ["read an image", "exit=9", "full"]
    complete = [event for event in events if event["ph"] == "X"]
    assert {event["name"] for event in complete if event["tid"] == 0} == {"decode", "resize"}
    whole = next(event for event in complete if event["tid"] == 2)
    within = [e for e in complete if e["tid"] == 2 and whole["ts"] <= e["ts"] < whole["ts"] + whole["dur"]][1:]
    assert [event["name"] for event in within] == ["stem", *(f"block_{n:02d}" for n in range(1, 13)), "tail"]
    for before, after in itertools.pairwise(within):
        assert after["ts"] == pytest.approx(before["ts"] + before["dur"], abs=0.01)
