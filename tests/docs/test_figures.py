"""Documents and figures show what is recorded."""

from __future__ import annotations

import copy
import io
import re
from contextlib import redirect_stdout
from typing import Any

import evidence_records
import layout
import photo_records
import plots
import pytest
import records
import service_record
from cogapp import Cog
from markdown_files import ROOT, documents


def test_documents_show_what_is_recorded() -> None:
    """Tables, sentences and options; `make figures` writes them again."""
    paths = [path for path in documents() if "[[[cog" in path.read_text("utf-8")]
    printed = io.StringIO()
    with redirect_stdout(printed):
        status = Cog().main(
            ["cog", "-I", str(ROOT / "docs/tools"), "-p", "from shown import *", "--check", *map(str, paths)]
        )
    assert status == 0, f"run make figures: {printed.getvalue()}"


def test_the_figures_of_the_layout_are_up_to_date() -> None:
    """Of all packages, drawn from their imports."""
    for name, svg in layout.figures().items():
        assert (layout.FIGURES / name).read_text("utf-8") == svg, f"{name}: run make figures"


def test_rooms_that_import_each_other_are_refused() -> None:
    """No floor could hold them."""
    with pytest.raises(ValueError, match=r"circle: a -> b -> a"):
        layout.floors({"a": {"b"}, "b": {"a"}})


@pytest.mark.parametrize("name", ["heads.svg", "noise.svg", "pareto.svg"])
def test_a_plot_was_drawn_from_the_record(name: str) -> None:
    """By the hash at its end; `python docs/tools/plots.py` draws it again."""
    assert plots.stamp() in (layout.FIGURES / name).read_text("utf-8")


def test_the_plot_of_the_service_was_drawn_from_its_record() -> None:
    """Once there is one; before, the page says how to make it."""
    if service_record.SERVICE_RECORD.is_file():
        assert plots.stamp(service_record.SERVICE_RECORD) in (layout.FIGURES / "service.svg").read_text("utf-8")
    else:
        assert service_record.service_table().startswith("Nothing is recorded yet.")


def test_what_is_said_of_cut_towers_is_in_the_report() -> None:
    """Each number of the sentence stands in the recorded report, and every exit that it names is one of its rows."""
    sentence = evidence_records.cuts_sentence()
    report = (ROOT / "benchmarks" / "evidence" / "evidence.md").read_text("utf-8")
    numbers = re.findall(r"\d+\.\d+ %", sentence)
    assert len(numbers) == 4
    assert all(number in report for number in numbers)
    kept = {row["block"] for row in records.evidence()["evaluation"]["rows"]}
    blocks = re.findall(r"after block (\d+)", sentence)
    assert blocks
    assert all(int(block) in kept for block in blocks)


@pytest.mark.parametrize(("accuracy", "words"), [(0.80, "No cut is as accurate"), (0.95, "after block 7 and saves")])
def test_cuts_win_or_lose_by_their_accuracy(monkeypatch: pytest.MonkeyPatch, accuracy: float, words: str) -> None:
    """The sentence follows the record, whichever way that turns out."""
    metrics: Any = copy.deepcopy(records.evidence())
    for row in metrics["evaluation"]["rows"]:
        if row["kind"] == "exit":
            row["accuracy"]["mean"] = accuracy if row["block"] == 7 else 0.5
    monkeypatch.setattr(evidence_records, "evidence", lambda _study="evidence": metrics)
    assert words in evidence_records.cuts_sentence()


def test_the_first_table_shows_photos_once_they_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three more columns, and rows of the tuned trunk; before that, the reference alone."""

    def row(trunk: str, precision: str, policy: str, mean: float) -> dict[str, Any]:
        interval = {"mean": mean, "low": mean - 0.01, "high": mean + 0.01}
        early = {"to_given_float": interval, "flops_saved": 0.1625 if policy == "LRA-EE" else None}
        of = {"trunk": trunk, "heads": "attention", "precision": precision, "policy": policy}
        return {**of, "accuracy": interval, **early}

    monkeypatch.setattr(photo_records, "photos", lambda: None)
    alone = photo_records.both_models_table().splitlines()
    assert len(alone) == 2 + 3
    assert "photos" not in alone[0]
    rows = [row("given", "FP32", "full", 0.6515), row("labels", "strong INT8", "LRA-EE", 0.6617)]
    monkeypatch.setattr(photo_records, "photos", lambda: {"accounting": rows, "conclusions": ["One.", "Two."]})
    both = photo_records.both_models_table().splitlines()
    assert len(both) == 2 + 4
    assert both[0].endswith("| natural photos: top-1 | FLOPs saved | points to FP32 |")
    assert both[2].endswith("| 65.15 % |  |  |")
    assert (
        both[-1] == "| early exits, trunk tuned with labels |  |  |  | 66.17 % | 16.2 % | +66.17 (+65.17 to +67.17) |"
    )
    assert photo_records.photo_conclusions() == "- One.\n- Two."
