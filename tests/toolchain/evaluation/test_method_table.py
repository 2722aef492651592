"""The tables of the evidence: every method at the same saving, gates that select, promises that are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lraee.errors import ExportError
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.evaluation.method_table import PABEE_ALL, PRUNING, REFERENCE


def test_every_precision_is_in_the_main_table(table_metrics: dict[str, Any]) -> None:
    """At full depth and routed; the paper's dynamic INT8 among them."""
    names = [row["name"] for row in table_metrics["ablations"]["rows"]]
    for precision in ("FP32", "dynamic INT8", "naive INT8", "strong INT8"):
        assert f"{precision}, full depth" in names
        assert f"LRA-EE on {precision}" in names


def test_the_reference_row_is_that_of_the_main_table(table_metrics: dict[str, Any]) -> None:
    """The same measurement in two tables."""
    table = {row["name"]: row for row in table_metrics["ablations"]["rows"]}["LRA-EE on strong INT8"]
    rows = {row["name"]: row for row in table_metrics["ablations"]["comparisons"]["rows"]}
    assert rows[REFERENCE]["accuracy"] == table["accuracy"]
    assert rows[REFERENCE]["flops_saved"] == pytest.approx(table["flops_saved"])
    assert table_metrics["ablations"]["comparisons"]["matched"] == pytest.approx(table["flops_saved"])
    assert rows[REFERENCE]["difference_to_lra_ee"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def test_the_others_are_compared_at_its_saving_or_not_at_all(table_metrics: dict[str, Any]) -> None:
    """Near it on images that chose nothing; a method that cannot save so much has no accuracy."""
    table = table_metrics["ablations"]["comparisons"]
    rows = {row["name"]: row for row in table["rows"]}
    assert {PRUNING, PABEE_ALL, "BranchyNet: entropy, free LCT"} <= set(rows)
    measured = [row for row in table["rows"] if row["accuracy"] is not None]
    assert len(measured) >= 8
    for row in measured:
        assert row["flops_saved"] >= table["matched"] - 0.1
        difference = row["accuracy"]["mean"] - rows[REFERENCE]["accuracy"]["mean"]
        assert row["difference_to_lra_ee"]["mean"] == pytest.approx(difference)
    for row in table["rows"]:
        assert [point["saved"] for point in row["front"]] == sorted(point["saved"] for point in row["front"])


def test_pruning_more_tokens_saves_more_and_costs_accuracy(table_metrics: dict[str, Any]) -> None:
    """On a tower that nobody trained for it."""
    front = {row["name"]: row for row in table_metrics["ablations"]["comparisons"]["rows"]}[PRUNING]["front"]
    assert len(front) >= 3
    assert front[-1]["saved"] > front[0]["saved"] + 0.1
    assert front[-1]["accuracy"] <= front[0]["accuracy"] + 0.02


def test_what_leaves_and_what_stays_add_up(table_metrics: dict[str, Any]) -> None:
    """To the accuracy of all."""
    for gate in table_metrics["ablations"]["selectivity"]:
        left, stayed = gate["left_early"], 1 - gate["left_early"]
        total = left * (gate["left_accuracy"] or 0) + stayed * (gate["stayed_accuracy"] or 0)
        assert total == pytest.approx(gate["accuracy"])
    quadrants = table_metrics["ablations"]["quadrants"]
    assert sum(quadrants.values()) == pytest.approx(table_metrics["images"]["evaluation"])


def test_promises_are_checked_and_the_untested_chooser_is_there_to_be_caught(table_metrics: dict[str, Any]) -> None:
    """The last check is of thresholds that nothing proved."""
    checks = table_metrics["ablations"]["promise"]["checks"]
    assert [check["repeats"] for check in checks] == [200] * len(checks)
    assert all(check["kept"] for check in checks[:-1])
    assert checks[-1]["exceeded"] > checks[-2]["exceeded"]


def test_the_promised_point_and_the_front_are_operating_points(table_metrics: dict[str, Any]) -> None:
    """Each is run by the runtime in the evaluation."""
    names = [row["name"] for row in table_metrics["evaluation"]["rows"]]
    assert "adaptive=promised" in names
    assert any(name.startswith("adaptive=saves-") for name in names)
    assert table_metrics["images"]["promise"] > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"promise": 0.0}, "--promise is 0.0"),
        ({"promise_confidence": 0.4}, "--promise-confidence is 0.4"),
    ],
)
def test_a_promise_out_of_range_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    """Before any work is done."""
    config = replace(ExportConfig(model="reference", out=tmp_path / "a.lraee"), **changes)
    with pytest.raises(ExportError, match=words):
        config.check()
