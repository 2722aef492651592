"""A report as a short Markdown page: where, what, two tables, how to repeat it, and what it does not show."""

from __future__ import annotations

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
    ratio_text,
    signed_percent,
    stability_line,
)
from lraee_benchmarks.results.model import Report, Row


def render_markdown(report: Report) -> str:
    """The page; ends with a newline."""
    lines = [
        f"# lraee-bench: {report.bundle.name}",
        "",
        f"- Device: {device_line(report.device)}",
        f"- Bundle: {bundle_line(report.bundle)}",
        f"- Method: {method_line(report)}",
        f"- {kinds_line(report)}",
        f"- {stability_line(report.stability)}",
        f"- {preprocessing_line(report)}",
    ]
    if report.cold_start is not None:
        lines.append(f"- {cold_start_line(report.cold_start)}")
    lines += ["", *_table(_LATENCY_HEAD, [_latency(row) for row in report.rows])]
    lines += ["", f"chain / row: {RATIO_TITLE[0].lower()}{RATIO_TITLE[1:]}."]
    if details := [*depth_lines(report), *lateness_lines(report), *energy_lines(report)]:
        lines += ["", *(f"- {line}" for line in details)]
    if report.floor is not None:
        lines += ["", *(f"- {line}" for line in floor_lines(report.floor))]
    if report.parts:
        lines += ["", *(f"- {line}" for line in part_lines(report.parts))]
    lines += ["", f"Savings against `{report.reference}`, the fastest full depth:", ""]
    head = [*_SAVING_HEAD, *(_ACCURACY_HEAD if report.accuracy_source is not None else [])]
    lines += _table(head, [_saving(row) for row in report.rows])
    if report.accuracy_source is not None:
        lines += ["", f"Top-1 on {_cell(report.accuracy_source)}; differences are to `full` on the same images."]
    lines += ["", "What ran the rows:", "", *(f"- {peer_line(peer)}" for peer in report.peers)]
    if report.notes:
        lines += ["", *(f"- {note}" for note in report.notes)]
    lines += ["", "Repeat it with:", "", "```bash", report.settings.command, "```"]
    return "\n".join(lines) + "\n"


_LATENCY_HEAD = ["row", "p50 ms", "95 % interval", "p90 ms", "p99 ms", "mean ms", "min ms", "images/s", "chain / row"]
_SAVING_HEAD = [
    "row",
    "MFLOPs",
    "FLOPs saved",
    "latency saved",
    "95 % interval",
    "latency / FLOPs",
    "leaves behind block",
]
_ACCURACY_HEAD = ["top-1", "to full"]


def _latency(row: Row) -> list[str]:
    latency = row.latency
    times = [latency.p90_ms, latency.p99_ms, latency.mean_ms, latency.min_ms]
    interval = interval_text(latency.p50_interval_ms, "{:.2f}")
    return [
        f"`{row.name}`",
        f"{latency.p50_ms:.2f}",
        interval,
        *(f"{time:.2f}" for time in times),
        f"{row.images_per_second:.1f}",
        ratio_text(row.chain_ratio),
    ]


def _saving(row: Row) -> list[str]:
    cells = [
        f"`{row.name}`",
        f"{row.flops / 1e6:,.2f}",
        signed_percent(row.flops_saved),
        signed_percent(row.latency_saved),
        interval_text(row.latency_saved_interval, "{:.1%}"),
        optional(row.latency_per_flops, "{:.2f}"),
        exits_text(row),
    ]
    return [*cells, *accuracy_text(row.accuracy)] if row.accuracy is not None else cells


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return ["| " + " | ".join(map(_cell, cells)) + " |" for cells in (head, rule, *rows)]


def _cell(text: str) -> str:
    """A pipe would end the cell."""
    return text.replace("|", "\\|")
