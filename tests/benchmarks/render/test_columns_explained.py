"""The documentation explains every column that the tables of a report have."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from lraee_benchmarks.render.text import render_text
from lraee_benchmarks.results.model import Report

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "bench.md").read_text("utf-8")


def test_every_column_of_the_tables_is_explained(make_report: Callable[..., Report]) -> None:
    """The head of each table that the screen shows, in the table of the page."""
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_text(make_report()), markup=False)
    printed = console.export_text()
    explained = set(re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE))))
    first = ("p50", "MFLOPs", "images ")
    heads = [line.split("  ") for line in printed.splitlines() if line.lstrip().startswith(first)]
    columns = {word.strip() for head in heads for word in head if word.strip()}
    assert {"p50", "MFLOPs", "latency/FLOPs"} <= columns
    assert columns <= explained
