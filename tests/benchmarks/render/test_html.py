"""Pages of one and of several results: what they hold, escaped, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lraee_benchmarks.render.html import app, page_of, page_of_many
from lraee_benchmarks.results.conditions import Stability
from lraee_benchmarks.results.model import Floor, Report, to_json

VOID = {"meta", "br"}


class Balanced(HTMLParser):
    """Reads a page, and fails on an end that fits no beginning."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def text_of(page: str) -> str:
    """The words of a page that is well-formed and loads nothing."""
    reader = Balanced()
    reader.feed(page)
    assert reader.open == []
    assert "http" not in page
    assert "src=" not in page
    return " ".join(reader.text)


def test_a_page_has_every_row_and_note(make_report: Callable[..., Report], floor: Floor) -> None:
    """And the command that repeats it."""
    report = make_report(floor=floor)
    words = text_of(page_of(report))
    for expected in (
        *(row.name for row in report.rows),
        report.settings.command,
        *report.notes,
        "Lower bound by computation",
    ):
        assert expected in words


def test_names_from_elsewhere_are_escaped(make_report: Callable[..., Report]) -> None:
    """A device may call itself what it likes."""
    report = make_report()
    report = dataclasses.replace(report, device=dataclasses.replace(report.device, model="<script>alert(1)</script>"))
    for page in (page_of(report), page_of_many([report, report])):
        assert "<script" not in page
        assert "<script>alert(1)</script>" in text_of(page)


def test_an_unstable_run_is_marked(make_report: Callable[..., Report]) -> None:
    """In either page."""
    unstable = dataclasses.replace(make_report().stability, stable=False, reasons=("other processes took 40%",))
    assert isinstance(unstable, Stability)
    report = make_report(stability=unstable)
    assert "UNSTABLE: other processes took 40%" in text_of(page_of(report))
    assert any("Do not trust this run" in note for note in report.notes)
    assert " NO" in text_of(page_of_many([report, make_report()]))


def test_bundles_stand_apart_and_devices_together(make_report: Callable[..., Report]) -> None:
    """Two devices for one model, one for another."""
    report = make_report()
    other = dataclasses.replace(report, bundle=dataclasses.replace(report.bundle, model="ViT-L-14"))
    page = page_of_many([report, report, other])
    assert page.count("<h2 ") == 2
    assert text_of(page).count("Raspberry Pi 5 Model B Rev 1.0") >= 3


def test_the_command_reads_files_and_folders(tmp_path: Path, make_report: Callable[..., Report]) -> None:
    """One result gives its own page, several a comparison; what is no result is named."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(to_json(make_report()), encoding="utf-8")
    page = tmp_path / "page.html"
    run = CliRunner().invoke
    assert run(app, [str(tmp_path / "a.json"), "-o", str(page)]).exit_code == 0
    assert "lraee-bench: clip.lraee" in page.read_text()
    assert run(app, [str(tmp_path), "-o", str(page)]).exit_code == 0
    assert "results by device" in page.read_text()
    (tmp_path / "c.json").write_text("{}")
    result = run(app, [str(tmp_path), "-o", str(page)])
    assert result.exit_code == 1
    assert "c.json" in result.output
    assert "schema" in result.output


@pytest.mark.parametrize("kind", ["missing", "empty"])
def test_nothing_to_render_is_said(tmp_path: Path, kind: str) -> None:
    """A file that is not there, and a folder without results."""
    source = tmp_path / "none.json" if kind == "missing" else tmp_path
    result = CliRunner().invoke(app, [str(source), "-o", str(tmp_path / "page.html")])
    assert result.exit_code == 1
    assert not (tmp_path / "page.html").exists()
