"""A report on the screen: rich tables that fit 100 columns."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lraee_benchmarks.render.wording import (
    RATIO_TITLE,
    accuracy_text,
    bundle_line,
    cold_start_line,
    depth_lines,
    device_line,
    energy_lines,
    exits_text,
    floor_lines,
    interval_text,
    kinds_line,
    lateness_lines,
    method_line,
    optional,
    part_lines,
    peer_line,
    preprocessing_line,
    ratios,
    signed_percent,
    stability_line,
)
from lraee_benchmarks.results.model import Report


def render_text(report: Report) -> RenderableType:
    """Header, latencies, savings, ratios, floor and accuracy if there are any, peers, and notes."""
    header = [
        device_line(report.device),
        bundle_line(report.bundle),
        method_line(report),
        kinds_line(report),
        stability_line(report.stability),
        preprocessing_line(report),
    ]
    if report.cold_start is not None:
        header.append(cold_start_line(report.cold_start))
    titles = [
        f"Latency of {report.settings.images_per_sample} image(s) in ms, from pixels to probabilities",
        f"Saved against {report.reference}, the fastest full depth",
    ]
    things: list[RenderableType] = [*map(Text, header)]
    for title, table in zip(titles, (_latencies(report), _savings(report)), strict=True):
        things += ["", Text(title, style="bold"), table]
    for title, lines in (
        ("Latency in ms by the block where an image leaves", depth_lines(report)),
        ("Deadlines", lateness_lines(report)),
        ("Energy", energy_lines(report)),
    ):
        if lines:
            things += ["", Text(title, style="bold"), *map(Text, lines)]
    if pairs := ratios(report):
        things += ["", Text(RATIO_TITLE, style="bold"), _ratios(pairs)]
    if report.floor is not None:
        things += ["", *map(Text, floor_lines(report.floor))]
    if report.parts:
        things += ["", *map(Text, part_lines(report.parts))]
    if report.accuracy_source is not None:
        things += ["", Text(f"Top-1 on {report.accuracy_source}, 95% intervals", style="bold"), _accuracies(report)]
    things += ["", Text("What ran the rows", style="bold"), *(Text(f"* {peer_line(peer)}") for peer in report.peers)]
    if report.notes:
        things += ["", *(Text(f"* {note}") for note in report.notes)]
    return Group(*things)


def _latencies(report: Report) -> Table:
    table = _table("p50", "95% interval", "p90", "p99", "mean", "min", "images/s")
    for row in report.rows:
        latency = row.latency
        interval = interval_text(latency.p50_interval_ms, "{:.2f}")
        times = (latency.p90_ms, latency.p99_ms, latency.mean_ms, latency.min_ms)
        cells = [f"{latency.p50_ms:.2f}", interval, *(f"{time:.2f}" for time in times), f"{row.images_per_second:.1f}"]
        table.add_row(Text(row.name), *cells)
    return table


def _savings(report: Report) -> Table:
    table = _table("MFLOPs", "FLOPs", "latency", "95% interval", "latency/FLOPs")
    table.add_column("leaves behind block")
    for row in report.rows:
        table.add_row(
            Text(row.name),
            f"{row.flops / 1e6:,.2f}",
            signed_percent(row.flops_saved),
            signed_percent(row.latency_saved),
            interval_text(row.latency_saved_interval, "{:.1%}"),
            optional(row.latency_per_flops, "{:.2f}"),
            exits_text(row),
        )
    return table


def _ratios(pairs: list[tuple[str, str]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for pair in pairs:
        table.add_row(*map(Text, pair))
    return table


def _accuracies(report: Report) -> Table:
    table = _table("images", "top-1", "points to full")
    for row in report.rows:
        if row.accuracy is not None:
            table.add_row(Text(row.name), str(row.accuracy.images), *accuracy_text(row.accuracy))
    return table


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right")
    return table
