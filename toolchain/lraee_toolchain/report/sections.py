"""What stands in ``report.html``, section by section. A section whose numbers are missing is left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lraee.bundle.manifest import Manifest
from lraee_benchmarks.render.page import Section, code, page_html, paragraph, side_by_side, table_html
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.early_exit.routing import candidates
from lraee_toolchain.evaluation.example_images import Picture
from lraee_toolchain.report.blocks import drawing_html, pictures_html, plot_html, style
from lraee_toolchain.report.bundle_tables import (
    default_row,
    evaluation_table,
    exits_table,
    parity_table,
    parts_table,
    points_table,
    precision_name,
    provenance_table,
)
from lraee_toolchain.report.command import commands_of
from lraee_toolchain.report.figures import (
    draw_heads,
    draw_pareto,
    draw_quadrants,
    draw_selectivity,
    draw_shares,
    noise_profiles,
)
from lraee_toolchain.report.headline import head_html, no_exits_text
from lraee_toolchain.report.plots.noise import noise_plot, quality_plot
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
from lraee_toolchain.report.tower_drawing import TowerDrawing


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything a report is made from."""

    manifest: Manifest
    metrics: dict[str, Any]
    config: ExportConfig
    pictures: Sequence[Picture] = ()

    @property
    def ablations(self) -> dict[str, Any]:
        """Empty when nothing was compared."""
        return self.metrics["ablations"] or {}

    @property
    def row(self) -> Any:
        """Evaluation of the default operating point, or None."""
        return default_row(self.manifest, self.metrics["evaluation"])


def report_page(found: Findings) -> str:
    """``report.html``."""
    writers: list[Callable[[Findings], Section | None]] = [
        _tower,
        _noise,
        _heads,
        _pareto,
        _leaving,
        _pictures,
        _points,
        _comparisons,
        _promise,
        _parts,
        _parity,
        _provenance,
        _repeat,
    ]
    sections = [section for write in writers if (section := write(found)) is not None]
    head = head_html(found.manifest, found.metrics, found.config)
    return page_html(f"{found.manifest.model.id}: export report", head, sections, style=style())


def _tower(found: Findings) -> Section:
    manifest, row = found.manifest, found.row
    blocks = [exit.block for exit in manifest.exits]
    shares = None if row is None else {block: row["exit_shares"].get(str(block), 0.0) for block in blocks}
    dropped = found.ablations.get("pruned", {}).get(precision_name(manifest), [])
    tower = TowerDrawing(depth=manifest.tower.blocks, exits=blocks, shares=shares, dropped=dropped)
    if not blocks:
        text = no_exits_text(found.config)
    elif shares is None:
        text = "Blocks with a frame have an exit behind them: a head that answers and a gate that judges the answer."
    else:
        text = (
            "Images run from left to right; the band is as thick as their number. Behind each framed block they meet "
            "a head that answers and a gate that judges the answer, and leave when it is good enough. Numbers are "
            f"percent of the images, at the operating point `{manifest.default_point}`."
        )
    if dropped:
        text += " A dashed frame marks a block where the noise of INT8 forbids an exit."
    return Section(
        anchor="tower",
        title="The tower and its exits" if shares is None else "Where images leave the tower",
        body=[drawing_html(tower.svg(960), tower.svg(360), text)],
    )


def _noise(found: Findings) -> Section | None:
    profiles = {} if found.manifest.model.is_random else noise_profiles(found.metrics)
    if not profiles:
        return None
    images = next(iter(profiles.values())).images
    text = f"How far each block's output in INT8 is from that in float, over {images:,} images of the gating split."
    noise = plot_html(
        noise_plot(profiles),
        "Noise of INT8 after each block, relative to what the block changes. The dashed curve is the paper's, of "
        "dynamic INT8 on ViT-B/32: its rise over the last blocks is what exits are to escape.",
    )
    quality = plot_html(
        quality_plot(profiles, candidates=candidates("auto", found.manifest.tower.blocks)),
        "Above, cosine of INT8 to FP32. Below, the Information-to-Noise Ratio (INR) of the mean patch token; a "
        "candidate below the dotted line, half the candidates' mean, gets no exit.",
    )
    table = noise_table(profiles, found.ablations.get("pruned", {}))
    body = [paragraph(text), side_by_side([noise, quality]), table_html(table)]
    if found.metrics.get("precisions") is not None:
        body.append(table_html(precisions_table(found.metrics["precisions"])))
    return Section(anchor="noise", title="Noise of every block", body=body)


def _heads(found: Findings) -> Section | None:
    heads = found.ablations.get("heads")
    if not heads or found.metrics["evaluation"] is None:
        return None
    plot = plot_html(
        draw_heads(found.manifest, found.metrics),
        "Top-1 of a head behind each block, trained alike and answering for all images, by the tokens it reads; one "
        "seed. The lines across are the tower's own answer at full depth. A head behind an early block has to make do "
        "with what the tower knows there; the paper reads the mean patch token, because the class token gathers its "
        "meaning late.",
        alone=True,
    )
    return Section(anchor="heads", title="What heads read", body=[plot, table_html(heads_table(heads))])


def _pareto(found: Findings) -> Section | None:
    if found.metrics["evaluation"] is None:
        return None
    compared = "comparisons" in found.ablations
    caption = (
        "Each method at several savings, its rules chosen on the gating split and measured on the evaluation split, "
        "mean of the seeds. The star is LRA-EE at the chosen point, with its 95 % interval. Parts far below full depth "
        "are cut off; every method is in the table below."
        if compared
        else "Operating points and single exits of this bundle on the evaluation split. The star is the default point, "
        "with its 95 % interval."
    )
    body = [plot_html(draw_pareto(found.manifest, found.metrics), caption, alone=True)]
    if (text := cuts_text(found.manifest, found.metrics["evaluation"])) is not None:
        body.append(paragraph(text))
    return Section(anchor="pareto", title="Accuracy over FLOPs", body=body)


def _leaving(found: Findings) -> Section | None:
    row, seeds = found.row, found.ablations.get("selectivity", [])
    if row is None:
        return None
    name = found.manifest.default_point
    figures = [plot_html(draw_shares(row), f"Share of images that leave at each place, at `{name}`.")]
    figures.append(
        plot_html(
            draw_quadrants(row),
            f"Answers of `{name}` against those at full depth, image by image. A rescue was wrong at full depth and is "
            "right with exits.",
        )
    )
    if drawn := draw_selectivity(seeds):
        caption = "Gates should let go what is right already. Beside it the same images at full depth"
        caption += "; mean of the seeds, bars from lowest to highest." if len(seeds) > 1 else "."
        figures.append(plot_html(drawn, caption))
    body = [side_by_side(figures)]
    if (table := selectivity_table(seeds)) is not None:
        body.append(table_html(table))
    return Section(anchor="leaving", title="Who leaves, and is it right?", body=body)


def _pictures(found: Findings) -> Section | None:
    if not found.pictures or found.manifest.model.is_random:
        return None
    known = any(picture.right is not None for picture in found.pictures)
    text = "Images drawn at random among those that left at each place, with the answer they left with."
    text += " A green frame and ✓: right. A red frame and ✗: wrong, and what it is." if known else ""
    return Section(
        anchor="pictures",
        title="Example images",
        body=[paragraph(text), pictures_html(found.pictures)],
    )


def _points(found: Findings) -> Section | None:
    if not found.manifest.exits:
        return None
    tables = [exits_table(found.manifest), points_table(found.manifest)]
    if found.metrics["evaluation"] is not None:
        tables.insert(0, evaluation_table(found.manifest, found.metrics["evaluation"]))
    return Section(anchor="points", title="Operating points", body=[table_html(table) for table in tables])


def _comparisons(found: Findings) -> Section | None:
    if not found.ablations:
        return None
    latency = found.metrics.get("latency")
    body = [paragraph(setting_text(found.ablations, latency))]
    body += [table_html(table) for table in study_tables(found.ablations, latency, bundle=found.row)]
    return Section(anchor="comparisons", title="What routing adds", body=body)


def _promise(found: Findings) -> Section | None:
    promise = found.ablations.get("promise")
    if not promise or not promise["checks"]:
        return None
    text = (
        "Thresholds can come with a promise: against full depth no more than so much accuracy is lost, with so much "
        "probability. Whether the promise is kept was tried out, and also whether a chooser without a test is caught."
    )
    return Section(anchor="promise", title="The promise", body=[paragraph(text), table_html(promise_table(promise))])


def _parts(found: Findings) -> Section:
    return Section(anchor="parts", title="FLOPs and sizes", body=[table_html(parts_table(found.manifest))])


def _parity(found: Findings) -> Section:
    text = (
        "Before anything is quantized, the exported float graphs are compared with torch, stage by stage; the export "
        "stops if they differ."
    )
    return Section(
        anchor="parity", title="Parity", body=[paragraph(text), table_html(parity_table(found.metrics["parity"]))]
    )


def _provenance(found: Findings) -> Section:
    return Section(anchor="provenance", title="Provenance", body=[table_html(provenance_table(found.manifest))])


def _repeat(found: Findings) -> Section:
    text = "The first exports once more, the second measures this bundle on the machine where it is to run."
    return Section(
        anchor="repeat", title="Repeat it", body=[paragraph(text), code(commands_of(found.config), "Commands")]
    )
