"""Text, Markdown and CSV say the same as the report."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Callable

import pytest
from rich.console import Console

from lraee_benchmarks.render.csv import render_csv
from lraee_benchmarks.render.markdown import render_markdown
from lraee_benchmarks.render.text import render_text
from lraee_benchmarks.results.model import Accuracy, Floor, Report


@pytest.fixture
def with_accuracy(make_report: Callable[..., Report], accuracy: Accuracy) -> Report:
    """A report in which every row has an accuracy."""
    rows = tuple(dataclasses.replace(row, accuracy=accuracy) for row in make_report().rows)
    return make_report(rows=rows, accuracy_source="fashion-mnist")


def screen(report: Report) -> str:
    """What a console of 100 columns shows."""
    console = Console(width=100, file=io.StringIO(), highlight=False)
    console.print(render_text(report), markup=False)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_markdown_states_device_method_and_how_to_repeat_it(make_report: Callable[..., Report]) -> None:
    """A latency without these is worth nothing."""
    page = render_markdown(make_report())
    assert "- Device: Raspberry Pi 5 Model B Rev 1.0 (aarch64), 4 cores, 8.0 GB, INT8 features: dotprod; " in page
    assert "threads 4 (session pool), batch 1, 5 warm-up rounds, 2 rounds over 256 images (photos)" in page
    assert "```bash\nlraee-bench clip.lraee\n```" in page
    assert page.endswith("\n")


def test_markdown_rows(make_report: Callable[..., Report]) -> None:
    """Each row stands in both tables, and every line of a table has as many cells as its head."""
    page = render_markdown(make_report())
    assert (
        "| `adaptive=balanced` | 9.00 | 8.90 to 9.10 | 9.20 | 9.40 | 9.00 | 8.70 | 111.1 | 1.11 [1.10, 1.12] |" in page
    )
    assert "| `adaptive=balanced` | 86.60 | 13.4% | 8.0% | 6.0% to 10.0% | 0.60 | 8: 25%, 12: 75% |" in page
    blocks = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert [len(block) for block in blocks] == [5, 5]
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)


def test_markdown_has_accuracy_only_where_it_was_measured(
    make_report: Callable[..., Report], with_accuracy: Report
) -> None:
    """No empty columns, and no number that was not measured."""
    assert "top-1" not in render_markdown(make_report())
    page = render_markdown(with_accuracy)
    assert "| 90.5% (89.2% to 91.8%) | -0.5 (-1.0 to +0.1) |" in page
    assert "Top-1 on fashion-mnist; differences are in points, to `full`" in page


def test_notes_are_in_text_and_markdown(make_report: Callable[..., Report]) -> None:
    """Both readers are warned alike."""
    report = make_report()
    assert report.notes
    shown = " ".join(screen(report).split())
    assert all(f"- {note}" in render_markdown(report) and note in shown for note in report.notes)


def test_text_fits_100_columns_and_cuts_nothing(make_report: Callable[..., Report], with_accuracy: Report) -> None:
    """Also with accuracy; rich would show an ellipsis where it cut."""
    for report in (make_report(), with_accuracy):
        text = screen(report)
        assert max(map(len, text.splitlines())) <= 100
        assert "…" not in text
        assert "8: 25%, 12: 75%" in text
        assert "first answer after 450 ms" in text


def test_each_kind_of_row_is_explained_once(make_report: Callable[..., Report]) -> None:
    """On the screen, on the page and in the file; kinds that are not there are not explained."""
    first, *others = make_report().rows
    routed = (("confidence=0.9", "confidence"), ("confidence=0.8", "confidence"), ("patience=2", "patience"))
    rows = tuple(dataclasses.replace(first, name=name, kind=kind) for name, kind in routed)  # type: ignore[arg-type]
    report = make_report(rows=(*rows, *others))
    line = (
        "Rows: confidence: one threshold on the largest probability decides; patience: images leave once consecutive "
        "exits agree (PABEE); full: all blocks run one by one; graph: the same tower runs as one graph"
    )
    assert f"- {line}\n" in render_markdown(report)
    assert line in " ".join(screen(report).split())
    lines = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert [line["kind"] for line in lines] == ["confidence", "confidence", "patience", "full", "graph"]
    assert "| `patience=2` |" in render_markdown(report)


def test_every_row_s_ratio_to_the_chain_is_in_all_forms(make_report: Callable[..., Report]) -> None:
    """On the screen for all but the chain itself, on the page in a column, in the CSV unrounded."""
    report = make_report()
    text = screen(report)
    assert "chain / adaptive=balanced  1.11 [1.10, 1.12]" in text
    assert "chain / graph              1.02 [1.01, 1.03]" in text
    assert "chain / full" not in text
    lines = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert [float(line["chain_ratio"]) for line in lines] == [row.chain_ratio.value for row in report.rows]


def test_what_ran_the_rows_is_in_text_and_markdown(make_report: Callable[..., Report]) -> None:
    """Engine, version, precision, threads and options."""
    line = (
        "chain: ONNX Runtime 1.23.0, int8, threads 4, takes uint8 pixels; sessions one for each part; "
        "thread pool session"
    )
    assert f"- {line}\n" in render_markdown(make_report())
    assert line in " ".join(screen(make_report()).split())


def test_the_floor_is_in_text_and_markdown_where_it_was_measured(
    make_report: Callable[..., Report], floor: Floor
) -> None:
    """Both bounds with the chain's distance to them."""
    assert "Lower bound" not in screen(make_report()) + render_markdown(make_report())
    report = make_report(floor=floor)
    for shown in (" ".join(screen(report).split()), render_markdown(report)):
        assert "the tower's 74 GEMMs alone, with 85.00 MB of weights, take 8.00 ms (7.90 to 8.10)" in shown
        assert "chain / GEMMs 1.25 [1.24, 1.27]" in shown
        assert "reading 85.00 MB once takes 5.00 ms (4.90 to 5.10), 17.0 GB/s; chain / read 2.00 [1.90, 2.10]" in shown


def test_a_process_for_each_row_is_said(make_report: Callable[..., Report]) -> None:
    """It is another measurement than all rows in one."""
    report = make_report(settings=dataclasses.replace(make_report().settings, isolated=True))
    assert "each in a process of its own on the same cores" in render_markdown(report)
    assert "process of its own" not in render_markdown(make_report())


def test_text_of_a_report_without_cold_start(make_report: Callable[..., Report]) -> None:
    """What was not measured is not mentioned."""
    assert "Fresh process" not in screen(make_report(cold_start=None))


def test_csv_has_one_line_a_row_with_unrounded_numbers(make_report: Callable[..., Report]) -> None:
    """And device and settings on each, so that files can be joined."""
    report = make_report()
    lines = list(csv.DictReader(io.StringIO(render_csv(report))))
    assert [line["row"] for line in lines] == ["adaptive=balanced", "full", "graph"]
    assert float(lines[0]["flops_saved"]) == report.rows[0].flops_saved
    assert lines[0]["exit_shares"] == "8:0.2500 12:0.7500"
    assert {line["device"] for line in lines} == {"Raspberry Pi 5 Model B Rev 1.0"}
    assert lines[1]["latency_per_flops"] == ""
    assert lines[0]["top1"] == ""


def test_csv_with_accuracy(with_accuracy: Report) -> None:
    """The same columns, filled."""
    lines = list(csv.DictReader(io.StringIO(render_csv(with_accuracy))))
    assert float(lines[0]["top1"]) == 0.905
    assert float(lines[0]["top1_difference_low"]) == -0.01
