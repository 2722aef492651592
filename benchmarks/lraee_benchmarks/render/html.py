"""Results as one page that needs no other file and no network: of one measurement, or of several side by side.

python -m lraee_benchmarks.render.html RESULT.json... -o page.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal

import typer
from markupsafe import Markup

from lraee.commands.output_files import check_writable, write_file
from lraee.commands.terminal import errors_as_one_line, run_command
from lraee.errors import DataError
from lraee_benchmarks.render.page import (
    PACKAGE,
    Section,
    Tile,
    bullets,
    code,
    macros,
    page_html,
    paragraph,
    table_html,
    tiles_html,
)
from lraee_benchmarks.render.report_tables import device_table, latency_table, saving_table
from lraee_benchmarks.render.wording import details, head_lines, peer_line, signed_percent, stability_line
from lraee_benchmarks.results.model import Report, Row, from_json

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """One line of a drawing of latencies."""

    name: str
    ms: float
    kind: Literal["adaptive", "full", ""]
    width: float
    """Of the bar, in per cent of the space."""
    reach: float
    """Where the line behind the bar ends."""


def page_of(report: Report) -> str:
    """Render the page of one measurement."""
    stability = paragraph(stability_line(report.stability), "" if report.stability.stable else "notice")
    head = [paragraph(report.created, "small"), tiles_html(_tiles(report)), stability, bullets(head_lines(report))]
    latency = latency_table(report)
    blocks = [
        (f"{latency.title}: p50, and a line to p99", [_row_bars(report.rows), table_html(latency)]),
        ("Savings", [table_html(saving_table(report))]),
        *((title, [bullets(lines)]) for title, lines in details(report)),
        ("What ran the rows", [bullets([peer_line(peer) for peer in report.peers])]),
        *([("Notes", [bullets(report.notes)])] if report.notes else []),
        ("Repeat it", [code([report.settings.command], "The command that repeats the measurement")]),
    ]
    return _page(f"lraee-bench: {report.bundle.name} on {report.device.model}", head, blocks)


def page_of_many(reports: Sequence[Report]) -> str:
    """Render measurements side by side, those of one bundle together."""
    groups: dict[tuple[str, str], list[Report]] = {}
    for report in reports:
        groups.setdefault((report.bundle.model, report.bundle.precision), []).append(report)
    blocks = []
    for (model, precision), group in sorted(groups.items()):
        title = f"{model}, {precision}, {group[0].bundle.full_flops / 1e9:.3g} GFLOPs at full depth"
        blocks.append((title, [*_device_bars(group), table_html(device_table(group))]))
    head = [
        paragraph("Each line is one file, as it was sent."),
        paragraph(
            "Saved: latency of the row compared with the fastest full depth on the same device, and FLOPs in brackets. "
            "INT8 over FP32: how many times as fast full depth is. Bundles of random weights show speed alone.",
            "small",
        ),
    ]
    return _page("lraee-bench: results by device", head, blocks)


@app.command()
def main(
    results: Annotated[list[Path], typer.Argument(help="Files that lraee-bench --json wrote, or folders of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The page.")],
) -> None:
    """Render one result, or several side by side, as a page."""
    with errors_as_one_line():
        files = _files(results)
        if output.resolve() in [path.resolve() for path in files]:
            raise DataError(f"{output} is one of the results; give --output another name, such as page.html")
        check_writable(output)
        reports = [read_result(path) for path in files]
        if not reports:
            raise DataError(f"{results[0]} holds no .json; give files that lraee-bench --json wrote")
        write_file(output, page_of(reports[0]) if len(reports) == 1 else page_of_many(reports))


def read_result(path: Path) -> Report:
    """Read a file that ``--json`` wrote.

    Raises:
        DataError: it cannot be read, or is of another schema.
    """
    try:
        return from_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _files(paths: Iterable[Path]) -> list[Path]:
    return [file for path in paths for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])]


def _page(title: str, head: Sequence[Markup], blocks: Sequence[tuple[str, Sequence[Markup]]]) -> str:
    sections = [
        Section(anchor=f"{number}-{re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')}", title=name, body=body)
        for number, (name, body) in enumerate(blocks, start=1)
    ]
    return page_html(title, head, sections, style=files(PACKAGE).joinpath("bars.css").read_text("utf-8"))


def _tiles(report: Report) -> list[Tile]:
    full, best, float_row = report.row(report.reference), report.early_exit(), report.row("fp32")
    tiles = []
    if full is not None:
        tiles.append(Tile(name=f"p50 at full depth ({full.name})", value=f"{full.latency.p50_ms:.2f} ms"))
    if best is not None:
        tiles.append(Tile(name=f"p50 of {best.name}", value=f"{best.latency.p50_ms:.2f} ms"))
        saved = f"{signed_percent(best.latency_saved)} / {signed_percent(best.flops_saved)}"
        tiles.append(Tile(name=f"time and FLOPs that {best.name} saves", value=saved))
    if full is not None and float_row is not None:
        ratio = float_row.latency.mean_ms / full.latency.mean_ms
        tiles.append(Tile(name="speed of full depth over FP32", value=f"{ratio:.2f} x"))
    return tiles


def _row_bars(rows: Sequence[Row]) -> Markup:
    longest = max(row.latency.p99_ms for row in rows) / 100
    return _bars(
        _Bar(
            name=row.name,
            ms=row.latency.p50_ms,
            kind="adaptive" if row.kind == "adaptive" else "full" if row.kind == "full" else "",
            width=row.latency.p50_ms / longest,
            reach=row.latency.p99_ms / longest,
        )
        for row in rows
    )


def _device_bars(reports: Sequence[Report]) -> list[Markup]:
    """Full depth of each report; nothing where there is nothing to compare."""
    pairs = [(report, row) for report in reports if (row := report.row(report.reference)) is not None]
    if len(pairs) < 2:
        return []
    longest = max(row.latency.p50_ms for _, row in pairs) / 100
    bars = [
        _Bar(
            name=f"{report.device.model}, {report.settings.threads} thread(s), batch {report.settings.batch}",
            ms=row.latency.p50_ms,
            kind="full",
            width=row.latency.p50_ms / longest,
            reach=0.0,
        )
        for report, row in pairs
    ]
    return [_bars(bars)]


def _bars(bars: Iterable[_Bar]) -> Markup:
    return Markup(macros(PACKAGE, "bars.html.jinja").bars(list(bars)))


if __name__ == "__main__":
    run_command(app, "python -m lraee_benchmarks.render.html")
