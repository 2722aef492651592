"""The JSON Schema that comes with the package describes what is written, and nothing else."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import pytest
from bench_schema import build_schema
from jsonschema import Draft202012Validator, ValidationError

from lraee_benchmarks.render.html import page_of_many, read_result
from lraee_benchmarks.results.model import SCHEMA, Accuracy, Energy, Floor, Lateness, PartTime, Report, to_json

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"
SHIPPED = json.loads((files("lraee_benchmarks") / "lraee-bench.schema.json").read_text("utf-8"))


def test_the_shipped_schema_is_that_of_the_code() -> None:
    """It is what ``python docs/tools/bench_schema.py`` prints."""
    assert build_schema() == SHIPPED
    assert SHIPPED["title"] == SCHEMA
    Draft202012Validator.check_schema(SHIPPED)


def test_a_report_is_valid(make_report: Callable[..., Report], accuracy: Accuracy, floor: Floor) -> None:
    """Bare, and with everything that is optional."""
    report = make_report()
    energy = Energy(source="RAPL", joules_per_image=0.1, watts=5.0, idle_watts=2.0)
    late = Lateness(ms=10.0, late=0.1, p99_ms=0.2, most_ms=0.3)
    rows = tuple(dataclasses.replace(row, accuracy=accuracy, energy=energy, lateness=late) for row in report.rows)
    parts = (PartTime(part="stem", p50_ms=0.4, share_of_full=0.02),)
    full = make_report(rows=rows, floor=floor, parts=parts, accuracy_source="fashion-mnist")
    for one in (report, full, make_report(cold_start=None, preprocessing=None)):
        Draft202012Validator(SHIPPED).validate(json.loads(to_json(one)))


@pytest.mark.parametrize("change", ["remove", "add", "retype"])
def test_what_is_no_report_is_invalid(make_report: Callable[..., Report], change: str) -> None:
    """A key that is missing, one too many, and one of another type."""
    raw = json.loads(to_json(make_report()))
    if change == "remove":
        del raw["stability"]["stable"]
    elif change == "add":
        raw["luck"] = 1
    else:
        raw["rows"][0]["flops"] = "many"
    with pytest.raises(ValidationError):
        Draft202012Validator(SHIPPED).validate(raw)


def test_results_that_were_sent_are_valid() -> None:
    """Every file of the folder."""
    files = sorted(RESULTS.rglob("*.json"))
    assert files
    for file in files:
        Draft202012Validator(SHIPPED).validate(json.loads(file.read_text(encoding="utf-8")))


def test_the_page_shows_the_results_that_were_sent() -> None:
    """All of them, as they are."""
    reports = [read_result(file) for file in sorted(RESULTS.rglob("*.json"))]
    assert page_of_many(reports) == (RESULTS / "index.html").read_text(encoding="utf-8")
