"""The tables of a report, which the screen, Markdown and HTML show alike."""

from __future__ import annotations

from collections.abc import Sequence

from lraee_benchmarks.render.table import MISSING, Table
from lraee_benchmarks.render.wording import (
    RATIO_TITLE,
    accuracy_text,
    exits_text,
    interval_text,
    optional,
    ratio_text,
    signed_percent,
)
from lraee_benchmarks.results.model import Report


def latency_table(report: Report) -> Table:
    """Latencies, and the ratio of the full chain to each row."""
    rows = []
    for row in report.rows:
        latency = row.latency
        times = (latency.p90_ms, latency.p99_ms, latency.mean_ms, latency.min_ms)
        interval = interval_text(latency.p50_interval_ms, "{:.2f}")
        cells = [f"`{row.name}`", f"{latency.p50_ms:.2f}", interval, *(f"{time:.2f}" for time in times)]
        rows.append([*cells, f"{row.images_per_second:.1f}", ratio_text(row.chain_ratio)])
    return Table(
        title=f"Latency of {report.settings.images_per_sample} image(s) in ms, from pixels to probabilities",
        note=f"chain / row: {RATIO_TITLE[0].lower()}{RATIO_TITLE[1:]}.",
        header=("row", "p50", "95% interval", "p90", "p99", "mean", "min", "images/s", "chain / row"),
        rows=rows,
    )


def saving_table(report: Report) -> Table:
    """FLOPs, time and exits of each row, and accuracy where it was measured."""
    rows = []
    for row in report.rows:
        cells = [
            f"`{row.name}`",
            f"{row.flops / 1e6:,.2f}",
            signed_percent(row.flops_saved),
            signed_percent(row.latency_saved),
            interval_text(row.latency_saved_interval, "{:.1%}"),
            optional(row.latency_per_flops, "{:.2f}"),
            exits_text(row),
        ]
        rows.append([*cells, *accuracy_text(row.accuracy)] if row.accuracy is not None else cells)
    header = ["row", "MFLOPs", "FLOPs saved", "latency saved", "95% interval", "latency / FLOPs", "leaves after block"]
    note = ""
    if report.accuracy_source is not None:
        header += ["top-1", "to full"]
        note = f"Top-1 on {report.accuracy_source}; differences are in points, to `full` on the same images."
    title = f"Saved compared with {report.reference}, the fastest full depth"
    return Table(title=title, note=note, header=header, rows=rows, words=(0, 6))


def device_table(reports: Sequence[Report]) -> Table:
    """One line for each report, of one model."""
    header = (
        "device", "features", "threads, batch", "full depth, p50 ms", "images/s", "early exit, p50 ms", "saved",
        "INT8 over FP32", "peak MB", "stable",
    )  # fmt: skip
    return Table(header=header, rows=[_device(report) for report in reports], words=(0, 1, 2, 9))


def _device(report: Report) -> list[str]:
    full, best, float_row = report.row(report.reference), report.early_exit(), report.row("fp32")
    assert full is not None
    settings, cold = report.settings, report.cold_start
    scenario = "" if settings.scenario == "single-stream" else f", {settings.scenario}"
    return [
        report.device.model,
        ", ".join(report.device.int8_features) or "none",
        f"{settings.threads}, {settings.batch}{scenario}",
        f"{full.latency.p50_ms:.2f}",
        f"{full.images_per_second:.1f}",
        MISSING if best is None else f"{best.latency.p50_ms:.2f} ({best.name.partition('=')[2]})",
        MISSING if best is None else f"{signed_percent(best.latency_saved)} ({signed_percent(best.flops_saved)})",
        MISSING if float_row is None else f"{float_row.latency.mean_ms / full.latency.mean_ms:.2f}",
        MISSING if cold is None else f"{cold.peak_rss_bytes / 1e6:.0f}",
        "yes" if report.stability.stable else "NO",
    ]
