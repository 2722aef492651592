"""Tables of what was compared: the paper's T1 to T4, how selective gates are, whether risk control holds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lraee_benchmarks.render.table import MISSING, Table
from lraee_exporters.graphs.exit import HeadInput
from lraee_toolchain.config.options import Precision
from lraee_toolchain.evaluation.metrics import (
    LRA_EE,
    Ablations,
    ExitAlone,
    Latency,
    MethodTable,
    PolicyRow,
    Precisions,
    Quadrants,
    Selectivity,
    WayRow,
)
from lraee_toolchain.evaluation.risk_metrics import RiskCheck, RiskChecks
from lraee_toolchain.evaluation.saturation import Saturation
from lraee_toolchain.quantization.noise import NoiseProfile
from lraee_toolchain.report.names import FACTORIAL, HEADS, method_name, way_name
from lraee_toolchain.report.wording import accuracy, percent, points, saving, threads_text


def setting_text(ablations: Ablations, latency: Latency | None) -> str:
    """Say how the comparisons were made."""
    seeds = f"Mean of {ablations.seeds} seeds (each with splits, heads, gates, exits and thresholds of its own)"
    who = "One seed" if ablations.seeds == 1 else seeds
    text = f"{who}, {ablations.images:,} images. "
    text += "Differences are paired, in points, with 95 % bootstrap intervals."
    if latency is not None:
        text += (
            f" Latency: this bundle, batch 1, {threads_text(latency.threads)}, mean over {latency.images} images, "
            f"interleaved, against {ablations.precision} at full depth."
        )
    return text


def study_tables(ablations: Ablations, latency: Latency | None, *, bundle: PolicyRow | None = None) -> Iterator[Table]:
    """Make T1 to T4 in the paper's order.

    Args:
        ablations: of the seeds.
        latency: of the rows of T1, or None.
        bundle: evaluation of the bundle itself, for T4.
    """
    main = ablations.precision
    times = {} if latency is None else {(row.way, row.precision): percent(row.saved, 1) for row in latency.rows}
    head = ["way to run", "top-1", "FLOPs saved"]
    tuned = any(row.difference_to_given is not None for row in ablations.main)
    against = [f"against {main}", "against SSA at the last block", "against FP32"]
    if tuned:
        against = [*against[:-1], "against FP32 tuned", "against FP32 as given"]
    yield Table(
        title="Main comparison (the paper's T1)",
        note="The rows at full depth show what repairing bad quantization brings; only the comparison with the head at "
        "the last block, which was trained in the same way, shows what routing itself adds."
        + (" All rows are of the tuned trunk; what tuning gave is in the last column alone." if tuned else ""),
        header=[*head, *(["latency saved"] if times else []), *against],
        rows=[
            _way(way_name(row.way, row.precision), row, [times.get((row.way, row.precision), "")] if times else [])
            for row in ablations.main
        ],
        highlight=[way_name("routed", main)],
    )
    if ablations.frontier:
        yield frontier_table(ablations)
    yield methods_table(ablations.methods, main)
    yield Table(
        title=f"Factorial (T3), on {main}",
        note="What the head, the distillation and the routing each bring.",
        header=[*head, *against],
        rows=[_way(FACTORIAL[row.way], row, []) for row in ablations.factorial],
    )
    yield quadrants_table(
        [_quadrants(f"LRA-EE on {main}, mean of the seeds", ablations.quadrants, 1)]
        + ([] if bundle is None else [_quadrants("this bundle", bundle.quadrants, 0)])
    )


def frontier_table(ablations: Ablations) -> Table:
    """Show what each way to run loses at every saving."""
    ways = [row.way for row in max(ablations.frontier.values(), key=len)]
    rows: dict[tuple[str, ...], str] = {}  # each with the highest level at which it stands
    for level, found in ablations.frontier.items():
        by_way = {row.way: row for row in found}
        rows[tuple(_at_level(by_way.get(way)) for way in ways)] = level
    return Table(
        title="Accuracy at every saving",
        note="For each way to run, the thresholds and the merging schedule that lose least on the gating split while "
        "they save at least so much there; in each cell the FLOPs saved on the evaluation split and the points to "
        f"{ablations.precision} at full depth, mean of {ablations.seeds} seeds.",
        header=["saved, gating split", *(way_name(way, ablations.precision) for way in ways)],
        rows=[[f"{level} %", *cells] for cells, level in rows.items()],
    )


def _at_level(row: WayRow | None) -> str:
    return MISSING if row is None else f"{percent(row.flops_saved, 1)}, {points(row.difference_to_int8)}"


def _way(name: str, row: WayRow, time: list[str]) -> list[str]:
    differences = [row.difference_to_int8, row.difference_to_ssa_last, row.difference_to_float]
    differences += [] if row.difference_to_given is None else [row.difference_to_given]
    saved = saving(row.flops_saved, row.flops_saved_std)
    return [name, accuracy(row.accuracy), saved, *time, *map(points, differences)]


def methods_table(methods: MethodTable, main: Precision) -> Table:
    """Make T2: every method at the FLOPs that LRA-EE saves."""
    rows = []
    for row in methods.rows:
        name, found = method_name(row.method), row.at_match
        if found is None:
            rows.append([name, "cannot save this much", MISSING, MISSING, MISSING])
            continue
        to_lra_ee = "" if row.method == LRA_EE else points(found.difference_to_lra_ee)
        saved = saving(found.flops_saved, found.flops_saved_std)
        rows.append([name, accuracy(found.accuracy), saved, to_lra_ee, points(found.difference_to_int8)])
    return Table(
        title="Other ways to leave early, at the same FLOPs (T2)",
        note="Each method is set on the gating split to save at least what LRA-EE saves there. On the evaluation split "
        f"LRA-EE then saves {percent(methods.matched, 1)}, and the table shows what each of the others saves. "
        f"By intervals that exclude zero: {verdict_text(methods) or 'nothing to compare.'}",
        header=["method", "top-1", "FLOPs saved", "against LRA-EE", f"against {main}, full depth"],
        rows=rows,
        highlight=[method_name(LRA_EE)],
    )


def verdict_text(methods: MethodTable) -> str | None:
    """Say which methods beat LRA-EE and which it beats, by intervals that exclude zero; None without any other."""
    better, even, worse = list[str](), list[str](), list[str]()
    for row in methods.rows:
        if row.at_match is not None and not row.method.startswith(LRA_EE):
            difference = row.at_match.difference_to_lra_ee
            kind = better if difference.low > 0 else worse if difference.high < 0 else even
            kind.append(method_name(row.method))
    if not (better or even or worse):
        return None
    kinds = (("LRA-EE loses to", better), ("It is level with", even), ("It beats", worse))
    return " ".join(f"{words}: {'; '.join(names) or 'none'}." for words, names in kinds)


def precisions_table(precisions: Precisions) -> Table:
    """Show full depth at every precision."""
    rows = [
        [row.precision, accuracy(row.accuracy), "" if row.precision == "FP32" else points(row.difference_to_float)]
        for row in precisions.rows
    ]
    return Table(
        title="Every precision at full depth",
        note=f"{precisions.images:,} images that no other step has seen. No image exits early here: this is what "
        "quantization alone costs.",
        header=["precision", "top-1", "against FP32"],
        rows=rows,
    )


def saturation_table(found: Saturation) -> Table:
    """Show what it costs that no product saturates."""
    here = (
        "Products of the usual quantization saturate on this CPU, so its sessions run ONNX Runtime's exact kernel."
        if found.matters_here
        else "No product saturates on this CPU in either form, so the times say nothing of one with AVX2 alone."
    )
    after = [accuracy(found.unsaturated), points(found.difference), f"{found.unsaturated_ms:.2f}"]
    return Table(
        title="What it costs that no product saturates",
        note=f"Full depth, {found.images:,} images that no other step has seen. Times are medians, batch 1, "
        f"{threads_text(found.threads)}, interleaved. {here}",
        header=["quantization", "top-1", "against the usual", "ms"],
        rows=[
            ["usual", accuracy(found.usual), "", f"{found.usual_ms:.2f}"],
            ["without saturation", *after],
        ],
    )


def quadrants_table(rows: Sequence[Sequence[str]]) -> Table:
    """Make T4."""
    return Table(
        title="Four quadrants (T4), images",
        note="Rescue: right with exits, wrong at full depth. Loss: wrong with exits, right at full depth. Net: rescue "
        "less loss, in points of all images.",
        header=["with exits", "both right", "rescue", "loss", "both wrong", "net"],
        rows=rows,
    )


def _quadrants(name: str, found: Quadrants, digits: int) -> list[str]:
    counts = (found.both_right, found.rescue, found.loss, found.both_wrong)
    net = 100 * (found.rescue - found.loss) / sum(counts)
    return [name, *(f"{count:,.{digits}f}" for count in counts), f"{net:+.2f}"]


def selectivity_table(seeds: Sequence[Selectivity]) -> Table | None:
    """Show the accuracy of images that exited and that went on; None where no image exited."""
    if all(seed.left_accuracy is None for seed in seeds):
        return None
    shares = [
        (s.left_early, s.left_accuracy, s.full_accuracy_of_left, s.stayed_accuracy, s.full_accuracy_of_stayed)
        for s in seeds
    ]
    return Table(
        title="Selectivity of the gates",
        note="A selective gate releases images that are already right. Full depth on the same images tells easy images "
        "from good exits.",
        header=["seed", "left early", "of these right", "at full depth", "of the others right", "at full depth"],
        rows=[
            [str(number), *(MISSING if share is None else percent(share) for share in row)]
            for number, row in enumerate(shares, start=1)
        ],
    )


def risk_table(risk: RiskChecks) -> Table:
    """Show how often chosen thresholds lost more than was allowed."""
    first = risk.controlled[0]
    named = [(f"risk-controlled, {100 * check.epsilon:g} points", check) for check in risk.controlled]
    named.append(("no test: saves most of what measures well", risk.uncontrolled))
    return Table(
        title="Does the guarantee hold?",
        note=f"Thresholds were chosen {first.repeats} times on random images and measured on {first.images:,} others. "
        "The guarantee is kept where the allowed loss was exceeded no more often, on those or on all images, than the "
        "limit; the limit allows for sampling error.",
        header=["chooser", "guarantee", "may lose", "with probability", "exceeded", "on all images", "limit",
                "mean loss in points", "FLOPs saved", "opened no exit"],
        rows=[_check(name, check) for name, check in named],
    )  # fmt: skip


def _check(name: str, check: RiskCheck) -> list[str]:
    return [
        name,
        "broken" if not check.kept else "kept (no exit open)" if check.closed == 1 else "kept",
        f"{100 * check.epsilon:g} points",
        percent(1 - check.delta, 0),
        *(percent(share, 1) for share in (check.exceeded, check.exceeded_on_pool, check.limit)),
        f"{100 * check.mean_drop:+.2f}",
        percent(check.mean_saved, 1),
        percent(check.closed, 1),
    ]


def noise_table(profiles: Mapping[Precision, NoiseProfile], pruned: Mapping[Precision, Sequence[int]] | None) -> Table:
    """Show what quantization does to the answer at full depth, and which exits it forbids."""
    rows = []
    for name, profile in profiles.items():
        drift = profile.embedding
        cells = [name, f"{drift.cosine:.5f}", f"{drift.angle_degrees:.2f}", percent(drift.flipped, 1)]
        if pruned is not None:
            cells.append(", ".join(str(block) for block in pruned.get(name, [])) or "none")
        rows.append(cells)
    dropped = "" if pruned is None else " Pruned: candidate exits whose INR is below half the candidates' mean."
    header = ["precision", "cosine", "angle in degrees", "answers changed"]
    return Table(
        title="What the noise does to the embedding",
        note="At full depth: mean cosine to FP32, mean angle between the two embeddings, and the share of images whose "
        f"answer changes.{dropped}",
        header=header if pruned is None else [*header, "pruned exits"],
        rows=rows,
    )


def alone_table(alone: Sequence[ExitAlone]) -> Table | None:
    """Show every candidate exit answering for all images, mean of the seeds; None where none was measured."""
    if not alone:
        return None
    blocks = sorted({exit.block for exit in alone})
    shares = {(exit.reads, exit.block): sum(exit.per_seed) / len(exit.per_seed) for exit in alone}
    rows = [
        [HEADS[reads], *(f"{100 * shares[reads, b]:.1f}" if (reads, b) in shares else MISSING for b in blocks)]
        for reads in dict.fromkeys(exit.reads for exit in alone)
    ]
    return Table(
        title="Every candidate exit alone",
        note="Top-1 in % of the exit after each block, answering for all images, mean of the seeds.",
        header=["head reads", *(str(block) for block in blocks)],
        rows=rows,
    )


def heads_table(heads: Mapping[HeadInput, Sequence[float]]) -> Table:
    """Show what a head should read."""
    depth = max(len(values) for values in heads.values())
    return Table(
        title="What a head should read",
        note="Top-1 in % of a head after each block, each answering for all images; one seed.",
        header=["head reads", *(str(block) for block in range(1, depth + 1))],
        rows=[[HEADS[reads], *(f"{100 * value:.1f}" for value in values)] for reads, values in heads.items()],
    )
