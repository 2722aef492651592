"""What an export found: ``report.html`` and ``report.md`` for people, ``metrics.json`` for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lraee.bundle.folder import Bundle
from lraee.bundle.manifest import Manifest
from lraee_benchmarks.render.table import Table
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.evaluation.example_images import Picture
from lraee_toolchain.quantization.noise import profile_csv
from lraee_toolchain.report.bundle_tables import (
    default_row,
    evaluation_table,
    exits_table,
    parity_table,
    parts_table,
    points_table,
    provenance_table,
    tower_bytes,
)
from lraee_toolchain.report.figures import noise_profiles
from lraee_toolchain.report.headline import images_text, no_exits_text, warnings_of
from lraee_toolchain.report.sections import Findings, report_page
from lraee_toolchain.report.static_cuts import cuts_text
from lraee_toolchain.report.study_tables import (
    heads_table,
    noise_table,
    precisions_table,
    promise_table,
    selectivity_table,
    setting_text,
    study_tables,
)


def write_report(
    bundle: Path, metrics: dict[str, Any], config: ExportConfig, folder: Path, *, pictures: Sequence[Picture] = ()
) -> None:
    """Write ``report.html``, ``report.md``, ``metrics.json`` and a ``noise-*.csv`` for each precision into `folder`.

    Args:
        bundle: the finished bundle.
        metrics: parity, noise, evaluation, ablations and latency, JSON-able.
        config: of the export, for the command that repeats it.
        folder: empty.
        pictures: for the page, from `lraee_toolchain.evaluation.example_images.run_pictures`.
    """
    manifest = Bundle(bundle).manifest
    (folder / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", "utf-8")
    for name, profile in noise_profiles(metrics).items():
        (folder / f"noise-{name.lower().replace(' ', '-')}.csv").write_text(profile_csv(profile), "utf-8")
    (folder / "report.md").write_text(report_markdown(manifest, metrics, config), "utf-8")
    page = report_page(Findings(manifest=manifest, metrics=metrics, config=config, pictures=pictures))
    (folder / "report.html").write_text(page, "utf-8")


def report_markdown(manifest: Manifest, metrics: dict[str, Any], config: ExportConfig) -> str:
    """``report.md``."""
    return "\n\n".join(_paragraphs(manifest, metrics, config)) + "\n"


def _paragraphs(manifest: Manifest, metrics: dict[str, Any], config: ExportConfig) -> Iterator[str]:
    yield f"# {manifest.model.id}: export report"
    yield (
        f"{manifest.model.architecture}, weights `{manifest.model.weights}`, {manifest.precision.upper()}, "
        f"{manifest.tower.blocks} blocks of width {manifest.tower.width}, "
        f"{manifest.full_flops / 1e9:.3f} GFLOPs at full depth (multiply-add = 2, matrix products only)."
    )
    yield images_text(metrics, config)
    yield from (f"**{text}**" for text in warnings_of(manifest, metrics, config))
    yield f"## Parts\n\nImage tower {tower_bytes(manifest) / 1e6:.2f} MB without exits."
    yield parts_table(manifest).to_markdown()
    yield "## Exits"
    if manifest.exits:
        yield exits_table(manifest).to_markdown()
        yield points_table(manifest).to_markdown()
    else:
        yield no_exits_text(config)
    if (profiles := noise_profiles(metrics)) and not manifest.model.is_random:
        pruned = (metrics["ablations"] or {}).get("pruned", {})
        yield from _titled(noise_table(profiles, pruned), "## Noise")
    if metrics.get("precisions") is not None:
        yield from _titled(precisions_table(metrics["precisions"]))
    if (evaluation := metrics["evaluation"]) is not None:
        yield from _titled(evaluation_table(manifest, evaluation), "## Evaluation")
        if (row := default_row(manifest, evaluation)) is not None:
            q = row["quadrants"]
            yield (
                f"Four quadrants of `{row['name']}` against full depth: both right {q['both_right']}, rescue "
                f"{q['rescue']}, loss {q['loss']}, both wrong {q['both_wrong']}."
            )
        if (text := cuts_text(manifest, evaluation)) is not None:
            yield text
    if metrics["ablations"] is not None:
        yield from _studies(metrics["ablations"], metrics["latency"])
    yield from _titled(parity_table(metrics["parity"]), "## Parity of the float graphs with torch")
    yield from _titled(provenance_table(manifest), "## Provenance")


def _studies(ablations: dict[str, Any], latency: dict[str, Any] | None) -> Iterator[str]:
    yield "## What routing adds"
    yield setting_text(ablations, latency)
    for table in study_tables(ablations, latency):
        yield from _titled(table)
    if (table_of_gates := selectivity_table(ablations.get("selectivity", []))) is not None:
        yield from _titled(table_of_gates)
    yield from _titled(heads_table(ablations["heads"]))
    if (promise := ablations.get("promise")) and promise["checks"]:
        yield from _titled(promise_table(promise))


def _titled(table: Table, heading: str = "") -> Iterator[str]:
    yield heading or f"### {table.title}"
    if table.note:
        yield table.note
    yield table.to_markdown()
