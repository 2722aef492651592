"""Tables of a bundle: its parts, exits and operating points, what it does on unseen images, and where it came from.

Those of the comparisons between ways to export and to leave are in `lraee_toolchain.report.study_tables`.
"""

from __future__ import annotations

from collections.abc import Sequence

from lraee.bundle.manifest import Manifest, OperatingPoint, Threshold, block_names
from lraee_benchmarks.render.table import MISSING, Table
from lraee_exporters.parity import StageParity
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.evaluation.metrics import Evaluation, GivenTower, PolicyRow
from lraee_toolchain.report.findings import Findings
from lraee_toolchain.report.names import policy_name
from lraee_toolchain.report.wording import accuracy, percent, points

ACCOUNTING = "What tuning gives, and what exits give"
"""Title of `accounting_table`."""


def tower_bytes(manifest: Manifest) -> int:
    """Add up stem, blocks and tail: what runs at full depth."""
    return manifest.bytes_of("stem", *block_names(manifest.tower.blocks), "tail")


def exits_bytes(manifest: Manifest) -> int:
    """Add up the exits, those under merging schedules too."""
    schedules = (manifest.schedule(None), *manifest.schedules)
    return manifest.bytes_of(*(exit.part for schedule in schedules for exit in schedule.exits))


def parts_table(manifest: Manifest) -> Table:
    """Show FLOPs and bytes of each part."""
    full = manifest.full_flops
    rows = []
    for part in manifest.parts:
        flops = manifest.flops_of(part.name, manifest.labels.count)
        megabytes = f"{manifest.bytes_of(part.name) / 1e6:.3f}"
        rows.append([part.name, f"{flops / 1e6:.2f}", percent(flops / full, 1), megabytes])
    last = manifest.part(f"block_{manifest.tower.blocks:02d}").flops
    dense = full + (manifest.part("block_01").flops - last)
    pruned = (
        f" The last block computes only the token that the tail reads: full depth takes {full / 1e6:.1f} MFLOPs, "
        f"{percent(1 - full / dense, 1)} less than the {dense / 1e6:.1f} of all tokens. Savings are counted against "
        f"the former; against the latter {percent(0.5, 0)} would be {percent(1 - 0.5 * full / dense, 1)}."
        if full < dense
        else ""
    )
    text = "" if manifest.text is None else " `text` embeds other labels: its FLOPs are those of the longest prompt."
    return Table(
        title="Parts",
        note="FLOPs of one image: multiply-add = 2, GEMMs only. `graph` is the whole tower as one graph over "
        f"the weights of the other parts, for comparison; it is not needed to run.{pruned}{text}",
        header=["part", "MFLOPs", "of full depth", "MB"],
        rows=rows,
    )


def measure_of(manifest: Manifest) -> str:
    """Say what heads and gates were fitted to."""
    exits = [exit for one in (manifest.schedule(None), *manifest.schedules) for exit in one.exits]
    labelled = not exits or exits[0].supervision == "labels"
    return "accuracy" if labelled else f"agreement with {manifest.provenance.get('taught_by', 'FP32')}"


def exits_table(manifest: Manifest) -> Table:
    """Show the exits, without their accuracy for random weights."""
    random, schedules = manifest.model.is_random, (manifest.schedule(None), *manifest.schedules)
    every = [exit for schedule in schedules for exit in schedule.exits]
    with_ratio = not random and any(exit.information_to_noise is not None for exit in every)
    header = ["after block", "head reads", "temperature", *(["INR"] if with_ratio else [])]
    header += [] if random else [f"{measure_of(manifest)} alone, gating split"]
    rows = []
    for schedule in schedules:
        for exit in schedule.exits:
            cells = [str(exit.block), exit.reads, f"{exit.temperature:.2f}"]
            if with_ratio:
                cells.append(MISSING if exit.information_to_noise is None else f"{exit.information_to_noise:,.0f}")
            cells += [] if random else [percent(exit.accuracy or 0.0)]
            rows.append([*cells, tokens_name(schedule.name)] if manifest.schedules else cells)
    return Table(title="Exits", header=[*header, "tokens"] if manifest.schedules else header, rows=rows)


def tokens_name(schedule: str | None) -> str:
    """Name the tokens of a merging schedule."""
    return "all" if schedule in (None, "none") else f"`{schedule}`"


def schedules_table(manifest: Manifest, evaluation: Evaluation | None) -> Table | None:
    """Show how tokens are merged, and what that does at full depth, without any exit; None where nothing is merged."""
    if not manifest.schedules:
        return None
    met = {} if evaluation is None else {row.point: row for row in evaluation.merged}
    rows = []
    for schedule in manifest.schedules:
        left = manifest.tower.tokens - sum(schedule.merged)
        cells = [tokens_name(schedule.name), " ".join(map(str, schedule.merged)), str(left)]
        if evaluation is not None:
            row = met[schedule.name]
            cells += [percent(row.flops_saved, 1), accuracy(row.accuracy), points(row.difference_to_full)]
        rows.append(cells)
    header = ["schedule", "pairs merged in each block", f"tokens left of {manifest.tower.tokens}"]
    header += [] if evaluation is None else ["FLOPs saved", "top-1", "against all tokens"]
    return Table(
        title="Merged tokens",
        note="Similar tokens become one between attention and MLP, and count as often as they stand for. Every "
        "schedule reads the same weights. What is shown is full depth, without any exit.",
        header=header,
        rows=rows,
    )


def points_table(manifest: Manifest) -> Table:
    """Show the operating points as they were chosen, on the gating split."""
    random, measure = manifest.model.is_random, measure_of(manifest)
    rows = []
    for point in manifest.operating_points:
        cells = [point.name, ", ".join(_threshold(threshold) for threshold in point.thresholds) or "none"]
        cells += [tokens_name(point.schedule)] if manifest.schedules else []
        if not random:
            cells += [
                percent(point.flops_saved, 1),
                percent(point.accuracy or 0.0),
                percent(point.full_accuracy or 0.0),
            ]
        rows.append(cells)
    header = ["operating point", "thresholds by block", *(["tokens"] if manifest.schedules else [])]
    header += [] if random else ["FLOPs saved", f"{measure}, gating split", "at full depth"]
    return Table(
        title="Thresholds of the operating points",
        note="" if random else "As they were chosen, on the gating split; the evaluation split took no part in it.",
        header=header,
        rows=rows,
        highlight=[manifest.default_point or ""],
    )


def _threshold(threshold: Threshold) -> str:
    if threshold.per_class is None:
        return f"{threshold.block}: {threshold.value:.3f}"
    return f"{threshold.block}: {min(threshold.per_class):.3f} to {max(threshold.per_class):.3f} by class"


def per_class_text(manifest: Manifest, config: ExportConfig) -> str | None:
    """Say whether class-based thresholds pay on the gating split; None where nobody asked for them."""
    points = {point.name: point for point in manifest.operating_points}
    if config.thresholds != "per-class" or manifest.default_point is None or not manifest.exits:
        return None
    plain, by_class = points[manifest.default_point], points.get("per-class")
    if by_class is None:
        return f"Class-based thresholds were left out: none of them meets the budget of `{plain.name}`."
    if config.min_flops_saving is None:
        pays = by_class.flops_saved > plain.flops_saved
    else:
        pays = (by_class.accuracy or 0.0) > (plain.accuracy or 0.0)

    def figures(point: OperatingPoint) -> str:
        accuracy = f"{percent(point.accuracy or 0.0)} {measure_of(manifest)}"
        return f"`{point.name}` saves {percent(point.flops_saved, 1)} of the FLOPs at {accuracy}"

    verb = "pay" if pays else "do not pay"
    return (
        f"Class-based thresholds {verb} on the gating split: within the same budget {figures(by_class)}, "
        f"{figures(plain)}."
    )


def evaluation_table(manifest: Manifest, evaluation: Evaluation) -> Table:
    """Show every policy of the bundle on unseen images."""
    given = evaluation.given
    rows = [] if given is None else [["FP32 as given, full depth", accuracy(given.accuracy), "", "", "", ""]]
    to_given = [] if given is None else [points(given.float_difference)]
    float_name = "FP32, full depth" if given is None else "FP32 tuned, full depth"
    rows.append([float_name, accuracy(evaluation.float_accuracy), "", *to_given, "", ""])
    for row in evaluation.rows:
        difference = "" if row.kind == "full" else points(row.difference_to_full)
        to_given = [] if row.difference_to_given is None else [points(row.difference_to_given)]
        cells = [policy_name(row), accuracy(row.accuracy), difference, *to_given]
        rows.append([*cells, percent(row.flops_saved, 1), _places(row)])
    before = [] if given is None else ["against FP32 as given"]
    return Table(
        title="Every policy of the bundle",
        note=f"{evaluation.images:,} images that no other step has seen, run by the runtime from the finished "
        "bundle. 95 % bootstrap intervals over images; differences are paired, in points, to full depth.",
        header=["policy", "top-1", "against full depth", *before, "FLOPs saved", "exit after block (%)"],
        rows=rows,
        highlight=[f"adaptive={manifest.default_point}"],
    )


def _places(row: PolicyRow) -> str:
    return ", ".join(f"{place.block or 'full'}: {100 * place.share:.0f}" for place in row.exit_shares)


def accounting_table(found: Findings) -> Table | None:
    """Hold apart what tuning the trunk gives and what exits give; None where it was not tuned, or nothing was measured.

    Savings and losses of exits count against the bundle's own full depth. What tuning does to full depth counts against
    the tower as given. An export tuned without exits (``--adapt-exits none``) is the control; two exports on the same
    images are paired by `Evaluation.right`, as ``benchmarks/evidence/photos.py`` does.
    """
    evaluation = found.metrics.evaluation
    if evaluation is None or evaluation.given is None:
        return None
    given, name = evaluation.given, tuning_name(found)
    rows = [["FP32 as given, full depth", accuracy(given.accuracy), "", "", ""]]
    if given.quantized is not None and given.quantized_difference is not None:
        to_float = points(given.quantized_difference)
        rows.append([f"{found.precision} as given, full depth", accuracy(given.quantized), to_float, "", ""])
    to_given = points(given.float_difference)
    rows.append([f"FP32 {name}, full depth", accuracy(evaluation.float_accuracy), to_given, "", ""])
    for row in (evaluation.full, *evaluation.points):
        to_given = "" if row.difference_to_given is None else points(row.difference_to_given)
        cells = [f"{found.precision} {name}, {policy_name(row)}", accuracy(row.accuracy), to_given]
        exits = ["", ""] if row.kind == "full" else [points(row.difference_to_full), percent(row.flops_saved, 1)]
        rows.append([*cells, *exits])
    return Table(
        title=ACCOUNTING,
        note=f"{evaluation.images:,} images that no other step has seen; differences are paired, in points, with 95 % "
        f"intervals. {accounting_text(found, evaluation, given)}",
        header=["tower", "top-1", "against FP32 as given", "exits: against own full depth", "exits: FLOPs saved"],
        rows=rows,
        highlight=[f"{found.precision} {name}, adaptive={found.manifest.default_point}"],
    )


def tuning_name(found: Findings) -> str:
    """Name the tuned tower by whether it was tuned with exits."""
    options = found.config.adapt
    return "tuned without exits" if options is not None and options.exits == "none" else "tuned with exits"


def accounting_text(found: Findings, evaluation: Evaluation, given: GivenTower) -> str:
    """Say what tuning and what exits did; neither is credited with the other's part."""
    moved = points(given.float_difference)
    text = f"Tuning moved full depth by {moved} points in FP32; none of this is credited to exits."
    if (row := found.row) is not None:
        text += (
            f" At `{policy_name(row)}` exits save {percent(row.flops_saved, 1)} of the bundle's own full depth and "
            f"change its top-1 by {points(row.difference_to_full)} points."
        )
    if tuning_name(found) == "tuned without exits":
        return f"{text} This is the control: no exit took part in the tuning."
    return f"{text} What the same photos and passes give without exits, an export with `--adapt-exits none` shows."


def parity_table(stages: Sequence[StageParity]) -> Table:
    """Show how well the float graphs agree with torch."""
    return Table(
        title="Parity of the float graphs with torch",
        note="Smallest mean-centred cosine over the images, and largest error over the spread between images.",
        header=["stage", "cosine", "error"],
        rows=[[stage.name, f"{stage.cosine:.7f}", f"{stage.error:.1e}"] for stage in stages],
    )


def provenance_table(manifest: Manifest) -> Table:
    """Show what the bundle was made from."""
    return Table(
        title="Fingerprints and versions",
        header=["made from", "version or fingerprint"],
        rows=[[name, f"`{value}`"] for name, value in manifest.provenance.items()],
        words=(0, 1),
    )
