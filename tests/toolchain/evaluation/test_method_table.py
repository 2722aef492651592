"""The tables of the evidence: every method at the same saving, gates that select, guarantees that are checked."""

from __future__ import annotations

from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import pytest

from lraee.errors import ExportError
from lraee_benchmarks.analysis.right_answers import unpack_right
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.evaluation.method_table import PABEE_EVERYWHERE, PRUNING
from lraee_toolchain.evaluation.metrics import LRA_EE, Ablations, AtMatch, Metrics
from lraee_toolchain.evaluation.paper_tables import FRONTIER


@pytest.fixture(scope="module")
def ablations(table_metrics: Metrics) -> Ablations:
    """The tables of the shared export."""
    assert table_metrics.ablations is not None
    return table_metrics.ablations


def matched(ablations: Ablations) -> dict[str, AtMatch]:
    """Methods that can save as much as LRA-EE."""
    return {row.method: row.at_match for row in ablations.methods.rows if row.at_match is not None}


def test_every_precision_is_in_the_main_table(ablations: Ablations) -> None:
    """At full depth and routed; the paper's dynamic INT8 among them."""
    ways = {(row.way, row.precision) for row in ablations.main}
    for precision in ("FP32", "dynamic INT8", "naive INT8", "strong INT8"):
        assert {("full", precision), ("routed", precision)} <= ways


def test_the_reference_row_is_that_of_the_main_table(ablations: Ablations) -> None:
    """The same measurement in two tables."""
    table = next(row for row in ablations.main if (row.way, row.precision) == ("routed", "strong INT8"))
    own = matched(ablations)[LRA_EE]
    assert own.accuracy == table.accuracy
    assert own.flops_saved == pytest.approx(table.flops_saved)
    assert ablations.methods.matched == pytest.approx(table.flops_saved)
    assert astuple(own.difference_to_lra_ee) == (0.0, 0.0, 0.0)


def test_every_saving_is_measured_along_the_front(ablations: Ablations) -> None:
    """Each row of a way that reaches it; where `balanced` saves, about what the main table says."""
    assert {int(level) for level in ablations.frontier} <= set(FRONTIER)
    assert "5" in ablations.frontier
    for level, rows in ablations.frontier.items():
        assert {row.way for row in rows} <= {"routed", "routed_label_free"}
        for row in rows:
            assert row.flops_saved >= int(level) / 100 - 0.1  # on images that chose nothing
    saved = [row.flops_saved for rows in ablations.frontier.values() for row in rows if row.way == "routed"]
    assert saved == sorted(saved)


def test_the_others_are_compared_at_its_saving_or_not_at_all(ablations: Ablations) -> None:
    """Near it on images that chose nothing; a method that cannot save as much has no accuracy."""
    assert {PRUNING, PABEE_EVERYWHERE, "branchynet"} <= {row.method for row in ablations.methods.rows}
    found = matched(ablations)
    assert len(found) >= 8
    for row in found.values():
        assert row.flops_saved >= ablations.methods.matched - 0.1
        difference = row.accuracy.mean - found[LRA_EE].accuracy.mean
        assert row.difference_to_lra_ee.mean == pytest.approx(difference)
    for method in ablations.methods.rows:
        assert [point.saved for point in method.front] == sorted(point.saved for point in method.front)


def test_which_images_every_seed_answers_right_is_kept(ablations: Ablations) -> None:
    """Of LRA-EE at the exported precision, so that other exports can be compared with it image by image."""
    table = next(row for row in ablations.main if (row.way, row.precision) == ("routed", "strong INT8"))
    seeds = [unpack_right(text, ablations.images) for text in ablations.routed_right]
    assert tuple(seed.mean() for seed in seeds) == pytest.approx(table.per_seed)


def test_every_candidate_exit_is_measured_alone(ablations: Ablations) -> None:
    """Deep ones answer better than shallow ones; without all tokens there are no heads of LGViT."""
    assert [exit.block for exit in ablations.methods.alone] == list(range(2, 12))
    assert ablations.methods.alone[-1].per_seed[0] > ablations.methods.alone[0].per_seed[0]
    assert not any(row.method.startswith("lgvit") for row in ablations.methods.rows)


def test_pruning_more_tokens_saves_more_and_costs_accuracy(ablations: Ablations) -> None:
    """On a tower that nobody trained for it."""
    front = next(row.front for row in ablations.methods.rows if row.method == PRUNING)
    assert len(front) >= 3
    assert front[-1].saved > front[0].saved + 0.1
    assert front[-1].accuracy <= front[0].accuracy + 0.02


def test_what_leaves_and_what_stays_add_up(table_metrics: Metrics, ablations: Ablations) -> None:
    """To the accuracy of all."""
    for gate in ablations.selectivity:
        left, stayed = gate.left_early, 1 - gate.left_early
        total = left * (gate.left_accuracy or 0) + stayed * (gate.stayed_accuracy or 0)
        assert total == pytest.approx(gate.accuracy)
    assert sum(astuple(ablations.quadrants)) == pytest.approx(table_metrics.images["evaluation"])


def test_guarantees_are_checked_and_the_uncontrolled_chooser_is_there_to_be_caught(ablations: Ablations) -> None:
    """It loses too much more often than risk control at the same limit."""
    risk = ablations.risk
    assert {check.repeats for check in (*risk.controlled, risk.uncontrolled)} == {200}
    assert all(check.kept for check in risk.controlled)
    assert risk.uncontrolled.exceeded > risk.controlled[-1].exceeded


def test_the_promised_point_and_the_front_are_operating_points(table_metrics: Metrics) -> None:
    """Each is run by the runtime in the evaluation."""
    assert table_metrics.evaluation is not None
    points = [row.point or "" for row in table_metrics.evaluation.points]
    assert "promised" in points
    assert any(point.startswith("saves-") for point in points)
    assert table_metrics.images["promise"] > 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"promise": 0.0}, "--promise is 0.0"),
        ({"promise_confidence": 0.4}, "--promise-confidence is 0.4"),
        ({"tables": "exported"}, "--tables exported narrows the tables of --ablations"),
    ],
)
def test_an_option_out_of_range_or_without_its_tables_is_refused(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Before any work is done."""
    config = replace(ExportConfig(model="reference", out=tmp_path / "a.lraee"), **changes)
    with pytest.raises(ExportError, match=words):
        config.check()
