"""The recorded evidence is compared figure by figure, and keeps what the project claims."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def evidence() -> ModuleType:
    """``benchmarks/evidence/evidence.py``, which is not part of a package."""
    spec = importlib.util.spec_from_file_location("evidence", ROOT / "benchmarks" / "evidence" / "evidence.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_changed_figure_is_named(evidence: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Equal apart from times is equal; one figure that moved is told with its place."""
    report = tmp_path / "evidence.report"
    report.mkdir()
    metrics = evidence.recorded("evidence")
    (report / "metrics.json").write_text(json.dumps(metrics | {"latency": {"rows": {}}}))
    assert evidence.compare(tmp_path) == 0
    metrics["evaluation"]["rows"][0]["accuracy"]["mean"] += 0.01
    (report / "metrics.json").write_text(json.dumps(metrics))
    assert evidence.compare(tmp_path) == 1
    assert "/evaluation/rows/0/accuracy/mean" in capsys.readouterr().out


def test_the_joined_images_are_whole(evidence: ModuleType, tmp_path: Path) -> None:
    """10,000 for training and 5,000 for testing, no name twice, in the order of their names."""
    evidence.join_images(tmp_path)
    for name, count in (("pool.zip", 10_000), ("test.zip", 5_000)):
        members = zipfile.ZipFile(tmp_path / name).namelist()
        assert len(members) == len(set(members)) == count
        assert members == sorted(members)


def test_the_evidence_keeps_what_the_project_claims(evidence: ModuleType) -> None:
    """Routing on strong INT8, with and without labels; quantizers with outliers; the guarantee of risk control."""
    ablations = evidence.recorded("evidence")["ablations"]
    rows = {(row["way"], row["precision"]): row for row in ablations["main"]}
    labelled, free = rows["routed", "strong INT8"], rows["routed_label_free", "strong INT8"]
    assert (ablations["images"], ablations["seeds"]) == (5000, 3)
    assert labelled["flops_saved"] >= 0.45
    assert free["flops_saved"] >= 0.35
    assert labelled["difference_to_float"]["low"] > -0.005
    right = {precision: row["accuracy"]["mean"] for (way, precision), row in rows.items() if way == "full"}
    assert right["strong INT8"] >= right["FP32"] - 0.002
    point, caught = ablations["risk"]["controlled"][-1], ablations["risk"]["uncontrolled"]
    assert point["epsilon"] == caught["epsilon"] == 0.01
    assert max(point["exceeded"], point["exceeded_on_pool"]) <= point["limit"]
    assert point["mean_saved"] > 0
    assert max(caught["exceeded"], caught["exceeded_on_pool"]) > caught["limit"]


@pytest.mark.parametrize("study", ["outliers", "b32-outliers"])
def test_strong_recovers_from_outlier_channels(evidence: ModuleType, study: str) -> None:
    """Naive loses at least 5 points, strong at most 0.3, and its noise at the last block is half of naive's at most."""
    metrics = evidence.recorded(study)
    found = (metrics["precisions"] or {"rows": (metrics["ablations"] or {}).get("main")})["rows"]
    right = {row["precision"]: row["accuracy"]["mean"] for row in found if row.get("way", "full") == "full"}
    assert right["naive INT8"] <= right["FP32"] - 0.05
    assert right["strong INT8"] >= right["FP32"] - 0.003
    last = {name: metrics["noise"][name]["blocks"][-1] for name in ("naive INT8", "strong INT8")}
    ratios = {name: block["delta_quant"] / block["delta_nat"] for name, block in last.items()}
    assert ratios["strong INT8"] <= 0.5 * ratios["naive INT8"]
