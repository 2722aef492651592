"""Render a report as CSV: one line a row, with device and settings, so that files of many devices can be joined."""

from __future__ import annotations

import csv
import io

from lraee_benchmarks.results.model import Report, Row

_Cell = str | int | float | None


def render_csv(report: Report) -> str:
    """Render lines with a header; numbers unrounded, shares and savings as fractions of 1, empty where not measured."""
    lines = [_line(report, row) for row in report.rows]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def _line(report: Report, row: Row) -> dict[str, _Cell]:
    device, settings, accuracy = report.device, report.settings, row.accuracy
    return {
        "schema": report.schema,
        "created": report.created,
        "device": device.model,
        "machine": device.machine,
        "cores": device.cores,
        "int8_features": " ".join(device.int8_features),
        "onnxruntime": device.onnxruntime,
        "lraee": device.lraee,
        "bundle": report.bundle.name,
        "fingerprint": report.bundle.fingerprint,
        "weights": report.bundle.weights,
        "precision": report.bundle.precision,
        "threads": settings.threads,
        "thread_pool": settings.thread_pool,
        "isolated": settings.isolated,
        "scenario": settings.scenario,
        "batch": settings.batch,
        "stable": report.stability.stable,
        "rounds": settings.rounds,
        "images": settings.images,
        "row": row.name,
        "kind": row.kind,
        "p50_ms": row.latency.p50_ms,
        "p50_low_ms": row.latency.p50_interval_ms.low,
        "p50_high_ms": row.latency.p50_interval_ms.high,
        "p90_ms": row.latency.p90_ms,
        "p99_ms": row.latency.p99_ms,
        "mean_ms": row.latency.mean_ms,
        "min_ms": row.latency.min_ms,
        "images_per_second": row.images_per_second,
        "flops": row.flops,
        "flops_saved": row.flops_saved,
        "reference": report.reference,
        "latency_saved": row.latency_saved,
        "latency_saved_low": row.latency_saved_interval.low,
        "latency_saved_high": row.latency_saved_interval.high,
        "latency_per_flops": row.latency_per_flops,
        "chain_ratio": row.chain_ratio.value,
        "chain_ratio_low": row.chain_ratio.interval.low,
        "chain_ratio_high": row.chain_ratio.interval.high,
        "exit_shares": " ".join(f"{exit.block}:{exit.share:.4f}" for exit in row.exit_shares),
        "share_weighted_ms": row.share_weighted_ms,
        "joules_per_image": row.energy.joules_per_image if row.energy is not None else None,
        "top1": accuracy.top1 if accuracy is not None else None,
        "top1_low": accuracy.interval.low if accuracy is not None else None,
        "top1_high": accuracy.interval.high if accuracy is not None else None,
        "top1_difference": accuracy.difference if accuracy is not None else None,
        "top1_difference_low": accuracy.difference_interval.low if accuracy is not None else None,
        "top1_difference_high": accuracy.difference_interval.high if accuracy is not None else None,
        "accuracy_images": accuracy.images if accuracy is not None else None,
    }
