"""What an export found, as ``report.md`` for people and ``metrics.json`` for programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lraee.bundle import Bundle
from lraee.manifest import Manifest
from lraee_toolchain.config import ExportConfig


def write_report(bundle: Path, metrics: dict[str, Any], config: ExportConfig, folder: Path) -> None:
    """Write ``report.md`` and ``metrics.json`` into `folder`.

    Args:
        bundle: the finished bundle.
        metrics: parity, evaluation and ablations, JSON-able.
        config: of the export, for the command that repeats it.
        folder: empty.
    """
    manifest = Bundle(bundle).manifest
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", "utf-8")
    sections = [
        _head(manifest, metrics, config),
        _parts(manifest),
        _exits(manifest),
        _evaluation(metrics["evaluation"]),
        _ablations(metrics["ablations"], metrics["latency"]),
        _parity(metrics["parity"]),
        _provenance(manifest),
    ]
    (folder / "report.md").write_text("\n\n".join(section for section in sections if section) + "\n", "utf-8")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first column is left-aligned, the others right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def percent(share: float, digits: int = 2) -> str:
    """A share from 0 to 1 as percent."""
    return f"{100 * share:.{digits}f} %"


def points(interval: dict[str, float]) -> str:
    """A difference of shares in points, with its interval."""
    return f"{100 * interval['mean']:+.2f} [{100 * interval['low']:+.2f}, {100 * interval['high']:+.2f}]"


def _accuracy(interval: dict[str, float]) -> str:
    return f"{percent(interval['mean'])} [{100 * interval['low']:.2f}, {100 * interval['high']:.2f}]"


def _head(manifest: Manifest, metrics: dict[str, Any], config: ExportConfig) -> str:
    images = metrics["images"]
    lines = [
        f"# {manifest.model.id}: export report",
        f"{manifest.model.architecture}, weights `{manifest.model.weights}`, {manifest.precision.upper()}, "
        f"{manifest.tower.blocks} blocks of width {manifest.tower.width}, "
        f"{manifest.full_flops / 1e9:.3f} GFLOPs at full depth (multiply-add = 2, matrix products only).",
        f"Images: {images['calibration']} calibration, {images['heads']} heads, {images['gating']} gates and "
        f"thresholds, {images['evaluation']} evaluation; no picture serves two purposes. "
        f"Supervision of the heads: {metrics['supervision']}. Seed {config.seed}.",
    ]
    if manifest.model.is_random:
        lines.append(
            "**Random weights: speed, size and memory mean something here, accuracy does not and is not given.**"
        )
    return "\n\n".join(lines)


def _parts(manifest: Manifest) -> str:
    size = {entry.name: entry.size_bytes for entry in manifest.files}
    rows = []
    for part in manifest.parts:
        flops = manifest.flops_of(part.name, manifest.labels.count)
        data = size[part.data] if part.data else 0
        rows.append([part.name, f"{flops / 1e6:.2f}", f"{(size[part.graph] + data) / 1e6:.3f}"])
    tower = sum(float(row[2]) for row in rows if not row[0].startswith("exit"))
    return f"## Parts\n\nImage tower {tower:.2f} MB without exits.\n\n" + table(["part", "MFLOPs", "MB"], rows)


def _exits(manifest: Manifest) -> str:
    if not manifest.exits:
        return "## Exits\n\nNo exit pays for this model on these images: every image runs to the end."
    random = manifest.model.is_random
    rows = [
        [
            str(exit.block),
            exit.reads,
            f"{exit.temperature:.2f}",
            "not given (random weights)" if exit.accuracy is None else percent(exit.accuracy),
        ]
        for exit in manifest.exits
    ]
    measure = "accuracy" if manifest.exits[0].supervision == "labels" else "agreement with FP32"
    text = "## Exits\n\n" + table(["behind block", "head reads", "temperature", f"{measure} alone, gating split"], rows)
    point_rows = []
    for point in manifest.operating_points:
        thresholds = ", ".join(f"{t.block}: {t.value:.3f}" for t in point.thresholds) or "none"
        cells = [point.name, thresholds]
        if not random:
            cells += [
                percent(point.flops_saved, 1),
                percent(point.accuracy or 0.0),
                percent(point.full_accuracy or 0.0),
            ]
        point_rows.append(cells)
    header = ["operating point", "thresholds by block"]
    if not random:
        header += ["FLOPs saved", f"{measure}, gating split", "at full depth"]
    return text + "\n\n" + table(header, point_rows)


def _evaluation(evaluation: dict[str, Any] | None) -> str:
    if evaluation is None:
        return ""
    rows = [["FP32, full depth", _accuracy(evaluation["float"]["accuracy"]), "", "", ""]]
    for row in evaluation["rows"]:
        shares = ", ".join(f"{name}: {100 * share:.0f}" for name, share in row["exit_shares"].items())
        rows.append(
            [
                row["name"],
                _accuracy(row["accuracy"]),
                points(row["difference_to_full"]) if row["name"] != "full depth" else "",
                percent(row["flops_saved"], 1),
                shares,
            ]
        )
    text = (
        f"## Evaluation\n\n{evaluation['images']} images that no other step has seen, run by the runtime from the "
        "finished bundle. 95 % bootstrap intervals over images; differences are paired, in points, to full depth.\n\n"
    )
    text += table(["policy", "top-1", "against full depth", "FLOPs saved", "left behind block (%)"], rows)
    adaptive = next((row for row in evaluation["rows"] if row["name"] == "adaptive=balanced"), None)
    if adaptive is not None:
        q = adaptive["quadrants"]
        text += (
            f"\n\nFour quadrants of `adaptive=balanced` against full depth: both right {q['both_right']}, rescue "
            f"{q['rescue']}, loss {q['loss']}, both wrong {q['both_wrong']}."
        )
    return text


def _ablations(ablations: dict[str, Any] | None, latency: dict[str, Any] | None) -> str:
    if ablations is None or latency is None:
        return ""
    header = ["", "top-1", "FLOPs saved", "latency saved"]
    header += [f"against {ablations['main']}", "against SSA at the last block", "against FP32"]

    def rows_of(rows: list[dict[str, Any]]) -> list[list[str]]:
        return [
            [
                row["name"],
                _accuracy(row["accuracy"]),
                f"{percent(row['flops_saved'], 1)} ± {100 * row['flops_saved_std']:.1f}",
                percent(latency["rows"][row["name"]]["saved"], 1) if row["name"] in latency["rows"] else "",
                points(row["difference_to_int8"]),
                points(row["difference_to_ssa_last"]),
                points(row["difference_to_float"]),
            ]
            for row in rows
        ]

    blocks = [str(block) for block in range(1, len(ablations["heads"]["patch_mean"]) + 1)]
    names = {"patch_mean": "patch mean (SSA)", "cls": "[CLS]", "both": "both"}
    study = [[names[reads], *(f"{100 * v:.1f}" for v in values)] for reads, values in ablations["heads"].items()]
    q = ablations["quadrants"]
    return "\n\n".join(
        [
            "## What routing adds",
            f"Mean of {ablations['seeds']} seeds (splits, heads, gates, exits and thresholds made anew for each), "
            f"{ablations['images']} images. Differences are paired, in points, with 95 % bootstrap intervals. Latency: "
            f"this bundle, batch 1, threads {latency['threads']}, mean over {latency['images']} images, interleaved, "
            f"against {ablations['main']} at full depth.",
            table(header, rows_of(ablations["rows"])),
            f"### Factorial (the paper's T3), on {ablations['main']}",
            table(header, rows_of(ablations["factorial"])),
            "### Four quadrants (T4), images, mean of the seeds",
            table(
                ["both right", "rescue", "loss", "both wrong"],
                [[f"{q[key]:.1f}" for key in ("both_right", "rescue", "loss", "both_wrong")]],
            ),
            "### What a head should read: top-1 in % of a head behind each block, one seed",
            table(["head reads", *blocks], study),
        ]
    )


def _parity(stages: list[dict[str, Any]]) -> str:
    rows = [[stage["name"], f"{stage['cosine']:.7f}", f"{stage['error']:.1e}"] for stage in stages]
    return (
        "## Parity of the float graphs with torch\n\nSmallest mean-centred cosine over the images, and largest error "
        "over the spread between images.\n\n" + table(["stage", "cosine", "error"], rows)
    )


def _provenance(manifest: Manifest) -> str:
    return "## Provenance\n\n" + table(["", ""], [[k, f"`{v}`"] for k, v in manifest.provenance.items()])
