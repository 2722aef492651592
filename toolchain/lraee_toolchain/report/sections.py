"""The sections of ``report.html``. A section whose numbers are missing is left out."""

from __future__ import annotations

from collections.abc import Callable

from lraee_benchmarks.render.page import Section, code, page_html, paragraph, side_by_side, table_html
from lraee_toolchain.early_exit.exits import candidates
from lraee_toolchain.evaluation.metrics import ExitShare
from lraee_toolchain.report.bundle_tables import (
    ACCOUNTING,
    accounting_table,
    evaluation_table,
    exits_table,
    parity_table,
    parts_table,
    per_class_text,
    points_table,
    provenance_table,
    schedules_table,
)
from lraee_toolchain.report.command import commands_of
from lraee_toolchain.report.figures import draw_heads, draw_pareto, draw_selectivity
from lraee_toolchain.report.findings import Findings
from lraee_toolchain.report.headline import head_html, no_exits_text
from lraee_toolchain.report.page_parts import drawing_html, merged_html, pictures_html, plot_html, style
from lraee_toolchain.report.plots.exits import exit_shares_plot, quadrants_plot
from lraee_toolchain.report.plots.noise import noise_plot, quality_plot
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
from lraee_toolchain.report.tower_drawing import TowerDrawing


def report_page(found: Findings) -> str:
    """Write ``report.html``."""
    writers: list[Callable[[Findings], Section | None]] = [
        _tower,
        _noise,
        _heads,
        _accounting,
        _pareto,
        _leaving,
        _pictures,
        _merged,
        _points,
        _comparisons,
        _risk,
        _parts,
        _parity,
        _provenance,
        _repeat,
    ]
    sections = [section for write in writers if (section := write(found)) is not None]
    return page_html(f"{found.manifest.model.id}: export report", head_html(found), sections, style=style())


def _tower(found: Findings) -> Section:
    manifest, row, ablations = found.manifest, found.row, found.metrics.ablations
    blocks = [exit.block for exit in found.schedule.exits]
    shares = None if row is None else {block: row.share(block) for block in blocks}
    dropped = () if ablations is None else ablations.pruned.get(found.precision, ())
    tower = TowerDrawing(depth=manifest.tower.blocks, exits=blocks, shares=shares, dropped=dropped)
    if not blocks:
        text = no_exits_text(found)
    elif shares is None:
        text = "After each framed block stands an exit: a head that answers and a gate that judges the answer."
    else:
        text = (
            "Images run from left to right; the width of the band is their number. After each framed block a head "
            "answers and a gate judges the answer; images whose answer is good enough exit there. Numbers are percent "
            f"of the images, at the operating point `{manifest.default_point}`."
        )
    if dropped:
        text += " A dashed frame marks a block where INT8 noise forbids an exit."
    return Section(
        anchor="tower",
        title="The tower and its exits" if shares is None else "Where images leave the tower",
        body=[drawing_html(tower.svg(960), tower.svg(360), text)],
    )


def _noise(found: Findings) -> Section | None:
    profiles, ablations = found.noise, found.metrics.ablations
    if not profiles:
        return None
    images = next(iter(profiles.values())).images
    text = f"How far each block's output in INT8 is from that in float, over {images:,} images of the gating split."
    noise = plot_html(
        noise_plot(profiles),
        "INT8 noise after each block, relative to what the block changes. The dashed curve is the paper's, of dynamic "
        "INT8 on ViT-B/32: early exits avoid its rise over the last blocks.",
    )
    quality = plot_html(
        quality_plot(profiles, candidates=candidates("auto", found.manifest.tower.blocks)),
        "Above, cosine of INT8 to FP32. Below, the Information-to-Noise Ratio (INR) of the mean patch token; a "
        "candidate below the dotted line, half the candidates' mean, gets no exit.",
    )
    table = noise_table(profiles, None if ablations is None else ablations.pruned)
    body = [paragraph(text), side_by_side([noise, quality]), table_html(table)]
    if found.metrics.precisions is not None:
        body.append(table_html(precisions_table(found.metrics.precisions)))
    if found.metrics.saturation is not None:
        body.append(table_html(saturation_table(found.metrics.saturation)))
    return Section(anchor="noise", title="Noise of every block", body=body)


def _heads(found: Findings) -> Section | None:
    ablations = found.metrics.ablations
    if ablations is None:
        return None
    plot = plot_html(
        draw_heads(found),
        "Top-1 of a head after each block, trained alike and answering for all images, by the tokens it reads; one "
        "seed. The lines across are the tower's own answer at full depth. A head after an early block sees only "
        "shallow features. The paper reads the mean patch token, because the class token becomes meaningful late.",
        alone=True,
    )
    tables = [heads_table(ablations.heads), alone_table(ablations.methods.alone)]
    body = [plot, *(table_html(table) for table in tables if table is not None)]
    return Section(anchor="heads", title="What heads read", body=body)


def _accounting(found: Findings) -> Section | None:
    table = accounting_table(found)
    return None if table is None else Section(anchor="accounting", title=ACCOUNTING, body=[table_html(table)])


def _pareto(found: Findings) -> Section | None:
    if found.metrics.evaluation is None:
        return None
    if found.metrics.ablations is not None:
        caption = (
            "Each method at several savings, its rules chosen on the gating split and measured on the evaluation "
            "split, mean of the seeds. The star is LRA-EE at the chosen point, with its 95 % interval. Points far "
            "below full depth are cut off; the table below has every method."
        )
    else:
        caption = (
            "Operating points and single exits of this bundle on the evaluation split. The star is the default point, "
            "with its 95 % interval."
        )
    body = [plot_html(draw_pareto(found), caption, alone=True)]
    if (text := cuts_text(found)) is not None:
        body.append(paragraph(text))
    return Section(anchor="pareto", title="Accuracy over FLOPs", body=body)


def _leaving(found: Findings) -> Section | None:
    row, ablations = found.row, found.metrics.ablations
    if row is None:
        return None
    seeds = () if ablations is None else ablations.selectivity
    name = found.manifest.default_point
    early = [place for place in row.exit_shares if place.block is not None]
    shares = exit_shares_plot([*early, ExitShare(block=None, share=row.share(None))])
    figures = [
        plot_html(shares, f"Share of images that leave at each place, at `{name}`."),
        plot_html(
            quadrants_plot(row.quadrants),
            f"Answers of `{name}` against those at full depth, image by image. A rescue was wrong at full depth and is "
            "right with exits.",
        ),
    ]
    if drawn := draw_selectivity(seeds):
        caption = "Gates should release what is already right. Compare with the same images at full depth"
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
    text = "Images drawn at random among those that left at each place, with their answer."
    text += " A green frame and ✓ mark a right answer; a red frame and ✗ a wrong one, with the label." if known else ""
    body = [paragraph(text), pictures_html(found.pictures)]
    return Section(anchor="pictures", title="Example images", body=body)


def _merged(found: Findings) -> Section | None:
    if not found.merged:
        return None
    text = (
        f"Pictures under the schedule `{found.schedule.name}` of the operating point `{found.manifest.default_point}`, "
        "after the last block that merges. Patches that became one token have their mean colour; lines stand between "
        "tokens. Patches of one token need not touch."
    )
    return Section(anchor="merged", title="Which patches became one", body=[paragraph(text), merged_html(found.merged)])


def _points(found: Findings) -> Section | None:
    if not found.manifest.operating_points:
        return None
    tables = [exits_table(found.manifest), points_table(found.manifest)]
    if (merged := schedules_table(found.manifest, found.metrics.evaluation)) is not None:
        tables.insert(0, merged)
    if found.metrics.evaluation is not None:
        tables.insert(0, evaluation_table(found.manifest, found.metrics.evaluation))
    body = [table_html(table) for table in tables]
    if (text := per_class_text(found.manifest, found.config)) is not None:
        body.append(paragraph(text))
    return Section(anchor="points", title="Operating points", body=body)


def _comparisons(found: Findings) -> Section | None:
    ablations, latency = found.metrics.ablations, found.metrics.latency
    if ablations is None:
        return None
    body = [paragraph(setting_text(ablations, latency))]
    body += [table_html(table) for table in study_tables(ablations, latency, bundle=found.row)]
    return Section(anchor="comparisons", title="What routing adds", body=body)


def _risk(found: Findings) -> Section | None:
    ablations = found.metrics.ablations
    if ablations is None:
        return None
    text = (
        "Risk control: with a chosen probability, accuracy falls by at most a chosen amount below full depth. The "
        "guarantee is checked by resampling; an uncontrolled choice of thresholds goes through the same check."
    )
    return Section(anchor="risk", title="Risk control", body=[paragraph(text), table_html(risk_table(ablations.risk))])


def _parts(found: Findings) -> Section:
    return Section(anchor="parts", title="FLOPs and sizes", body=[table_html(parts_table(found.manifest))])


def _parity(found: Findings) -> Section:
    text = (
        "Before anything is quantized, the exported float graphs are compared with torch, stage by stage; the export "
        "stops if they differ."
    )
    body = [paragraph(text), table_html(parity_table(found.metrics.parity))]
    return Section(anchor="parity", title="Parity", body=body)


def _provenance(found: Findings) -> Section:
    return Section(anchor="provenance", title="Provenance", body=[table_html(provenance_table(found.manifest))])


def _repeat(found: Findings) -> Section:
    text = "The first command repeats the export; the second measures this bundle on the machine where it is to run."
    body = [paragraph(text), code(commands_of(found.config), "Commands")]
    return Section(anchor="repeat", title="Repeat it", body=body)
