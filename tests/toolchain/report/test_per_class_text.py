"""The report says whether class-based thresholds pay, where they were asked for."""

from dataclasses import replace
from pathlib import Path

import pytest

from lraee.bundle.manifest import Manifest
from lraee.bundle.manifest_file import read_manifest
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.report.bundle_tables import per_class_text, points_table

CONFIG = ExportConfig(model="reference", out=Path("unused.lraee"), thresholds="per-class")


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """The golden bundle's, whose second point gets the name and other figures."""
    golden = read_manifest(Path(__file__).parents[2] / "runtime" / "golden" / "format_1.lraee")
    plain, by_class = golden.operating_points
    plain = replace(plain, flops_saved=0.4, accuracy=0.81)
    by_class = replace(by_class, name="per-class", flops_saved=0.35, accuracy=0.83)
    return replace(golden, operating_points=(plain, by_class))


def test_thresholds_that_save_less_do_not_pay(manifest: Manifest) -> None:
    """Within the same drop of accuracy; both points are named with their figures."""
    text = per_class_text(manifest, CONFIG)
    assert text is not None
    assert text.startswith("Class-based thresholds do not pay on the gating split: within the same budget `per-class` ")
    assert "saves 35.0 % of the FLOPs at 83.0" in text
    assert "`balanced` saves 40.0 % of the FLOPs at 81.0" in text


def test_with_a_wanted_saving_the_accuracy_decides(manifest: Manifest) -> None:
    """It is the accuracy that such a budget leaves free."""
    text = per_class_text(manifest, replace(CONFIG, min_flops_saving=0.3))
    assert text is not None
    assert text.startswith("Class-based thresholds pay on the gating split")


def test_thresholds_that_meet_no_budget_are_said_to_be_left_out(manifest: Manifest) -> None:
    """Else a user would look for the point."""
    without = replace(manifest, operating_points=manifest.operating_points[:1])
    text = per_class_text(without, CONFIG)
    assert text == "Class-based thresholds were left out: none of them meets the budget of `balanced`."


def test_nothing_is_said_where_nobody_asked(manifest: Manifest) -> None:
    """Nor where the bundle has no exits."""
    assert per_class_text(manifest, replace(CONFIG, thresholds="per-exit")) is None
    assert per_class_text(replace(manifest, exits=()), CONFIG) is None


def test_the_table_of_points_shows_the_range_of_thresholds_by_class(manifest: Manifest) -> None:
    """A thousand labels would not fit."""
    assert "1: 0.600 to 1.000 by class" in points_table(manifest).to_markdown()
