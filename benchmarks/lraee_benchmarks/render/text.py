"""A report on the screen: rich tables that fit 100 columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import table as rich_table
from rich.console import Group, RenderableType
from rich.text import Text

from lraee_benchmarks.render.report_tables import latency_table, saving_table
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import (
    RATIO_TITLE,
    accuracy_text,
    details,
    head_lines,
    peer_line,
    ratios,
    stability_line,
)
from lraee_benchmarks.results.model import Report

SAVINGS = ("MFLOPs", "FLOPs", "latency", "95% interval", "latency/FLOPs", "leaves after block")
"""Short names, so that the table fits."""


def render_text(report: Report) -> RenderableType:
    """Render the lines at the top, latencies, savings, ratios, whatever else was measured, and the notes."""
    latency, saving = latency_table(report), saving_table(report)
    things: list[RenderableType] = [
        *map(Text, (*head_lines(report), stability_line(report.stability))),
        *_titled(latency.title, _table(latency, latency.header[1:8])),
        *_titled(saving.title, _table(saving, SAVINGS)),
    ]
    if pairs := ratios(report):
        things += _titled(RATIO_TITLE, _plain(["", ""], pairs, words=(0, 1), show_header=False))
    for title, lines in details(report):
        things += _titled(title, *map(Text, lines))
    if report.accuracy_source is not None:
        rows = [(row.name, *accuracy_text(row.accuracy)) for row in report.rows if row.accuracy is not None]
        title = f"Top-1 on {report.accuracy_source}, 95% intervals"
        things += _titled(title, _plain(["", "top-1", "points to full"], rows))
    things += _titled("What ran the rows", *(Text(f"* {peer_line(peer)}") for peer in report.peers))
    if report.notes:
        things += ["", *(Text(f"* {note}") for note in report.notes)]
    return Group(*things)


def _titled(title: str, *things: RenderableType) -> list[RenderableType]:
    return ["", Text(title, style="bold"), *things]


def _table(table: Table, header: Sequence[str]) -> rich_table.Table:
    """The first columns of a table, under a header that is shorter by the name of the first one."""
    rows = [[cell.replace("`", "") for cell in row[: len(header) + 1]] for row in table.rows]
    return _plain(["", *header], rows, words=table.words)


def _plain(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Collection[int] = (0,), show_header: bool = True
) -> rich_table.Table:
    table = rich_table.Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=show_header)
    for column, name in enumerate(header):
        is_words = column in words
        table.add_column(name, justify="left" if is_words else "right", overflow="fold", no_wrap=not is_words)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
