"""What an export found: ``report.html`` and ``report.md`` for people, ``metrics.json`` for programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lraee.bundle.strict_json import write_json
from lraee_benchmarks.render.table import Table
from lraee_toolchain.evaluation.metrics import Ablations, Latency
from lraee_toolchain.quantization.noise import profile_csv
from lraee_toolchain.report.bundle_tables import (
    accounting_table,
    evaluation_table,
    exits_table,
    parity_table,
    parts_table,
    per_class_text,
    points_table,
    provenance_table,
    schedules_table,
    tower_bytes,
)
from lraee_toolchain.report.findings import Findings
from lraee_toolchain.report.headline import images_text, no_exits_text, warnings_of
from lraee_toolchain.report.names import policy_name
from lraee_toolchain.report.sections import report_page
from lraee_toolchain.report.static_cuts import cuts_text
from lraee_toolchain.report.study_tables import (
    alone_table,
    heads_table,
    noise_table,
    precisions_table,
    risk_table,
    saturation_table,
    selectivity_table,
    setting_text,
    study_tables,
)


def write_report(found: Findings, folder: Path) -> None:
    """Write ``report.html``, ``report.md``, ``metrics.json`` and a ``noise-*.csv`` for each precision.

    Args:
        found: what the report is made from.
        folder: empty.
    """
    write_json(found.metrics, folder / "metrics.json")
    for name, profile in found.metrics.noise.items():
        (folder / f"noise-{name.lower().replace(' ', '-')}.csv").write_text(profile_csv(profile), "utf-8")
    (folder / "report.md").write_text(report_markdown(found), "utf-8")
    (folder / "report.html").write_text(report_page(found), "utf-8")


def report_markdown(found: Findings) -> str:
    """Write ``report.md``."""
    return "\n\n".join(_paragraphs(found)) + "\n"


def _paragraphs(found: Findings) -> Iterator[str]:
    manifest, metrics = found.manifest, found.metrics
    yield f"# {manifest.model.id}: export report"
    yield (
        f"{manifest.model.architecture}, weights `{manifest.model.weights}`, {manifest.precision.upper()}, "
        f"{manifest.tower.blocks} blocks of width {manifest.tower.width}, "
        f"{manifest.full_flops / 1e9:.3f} GFLOPs at full depth (multiply-add = 2, GEMMs only)."
    )
    yield images_text(found)
    yield from (f"**{text}**" for text in warnings_of(found))
    yield f"## Parts\n\nImage tower {tower_bytes(manifest) / 1e6:.2f} MB without exits."
    yield parts_table(manifest).to_markdown()
    yield "## Exits"
    if (merged := schedules_table(manifest, metrics.evaluation)) is not None:
        yield from _titled(merged)
    if manifest.operating_points:
        yield exits_table(manifest).to_markdown()
        yield points_table(manifest).to_markdown()
        if (text := per_class_text(manifest, found.config)) is not None:
            yield text
    else:
        yield no_exits_text(found)
    if found.noise:
        pruned = None if metrics.ablations is None else metrics.ablations.pruned
        yield from _titled(noise_table(found.noise, pruned), "## Noise")
    if metrics.precisions is not None:
        yield from _titled(precisions_table(metrics.precisions))
    if metrics.saturation is not None:
        yield from _titled(saturation_table(metrics.saturation))
    if (table := accounting_table(found)) is not None:
        yield from _titled(table, f"## {table.title}")
    if metrics.evaluation is not None:
        yield from _titled(evaluation_table(manifest, metrics.evaluation), "## Evaluation")
        yield from _default_point(found)
    if metrics.ablations is not None:
        yield from _studies(metrics.ablations, metrics.latency)
    yield from _titled(parity_table(metrics.parity), "## Parity of the float graphs with torch")
    yield from _titled(provenance_table(manifest), "## Provenance")


def _default_point(found: Findings) -> Iterator[str]:
    if (row := found.row) is not None:
        q = row.quadrants
        yield (
            f"Four quadrants of `{policy_name(row)}` against full depth: both right {q.both_right:.0f}, rescue "
            f"{q.rescue:.0f}, loss {q.loss:.0f}, both wrong {q.both_wrong:.0f}."
        )
    if (text := cuts_text(found)) is not None:
        yield text


def _studies(ablations: Ablations, latency: Latency | None) -> Iterator[str]:
    yield "## What routing adds"
    yield setting_text(ablations, latency)
    for table in study_tables(ablations, latency):
        yield from _titled(table)
    if (table_of_gates := selectivity_table(ablations.selectivity)) is not None:
        yield from _titled(table_of_gates)
    yield from _titled(heads_table(ablations.heads))
    if (table_of_exits := alone_table(ablations.methods.alone)) is not None:
        yield from _titled(table_of_exits)
    yield from _titled(risk_table(ablations.risk))


def _titled(table: Table, heading: str = "") -> Iterator[str]:
    yield heading or f"### {table.title}"
    if table.note:
        yield table.note
    yield table.to_markdown()
