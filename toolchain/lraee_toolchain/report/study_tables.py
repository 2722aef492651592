"""Tables of what was compared: the paper's T1 to T4, how selective gates are, whether promises are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lraee_benchmarks.render.table import MISSING, Table
from lraee_toolchain.quantization.noise import NoiseProfile
from lraee_toolchain.report.wording import accuracy, percent, points

Row = Mapping[str, Any]

QUADRANTS = {"both_right": "both right", "rescue": "rescue", "loss": "loss", "both_wrong": "both wrong"}
READS = {"patch_mean": "patch mean (SSA)", "cls": "[CLS]", "both": "both"}


def setting_text(ablations: Row, latency: Row | None) -> str:
    """How the comparisons were made."""
    seeds = f"Mean of {ablations['seeds']} seeds (splits, heads, gates, exits and thresholds made anew for each)"
    who = "One seed" if ablations["seeds"] == 1 else seeds
    text = f"{who}, {ablations['images']:,} images. "
    text += "Differences are paired, in points, with 95 % bootstrap intervals."
    if latency is not None:
        threads = "1 thread" if latency["threads"] == 1 else f"{latency['threads']} threads"
        text += (
            f" Latency: this bundle, batch 1, {threads}, mean over {latency['images']} images, interleaved, against "
            f"{ablations['main']} at full depth."
        )
    return text


def study_tables(ablations: Row, latency: Row | None, *, bundle: Row | None = None) -> Iterator[Table]:
    """T1 to T4 in the paper's order.

    Args:
        ablations: of the seeds.
        latency: of the rows of T1, or None.
        bundle: evaluation of the bundle itself, for T4.
    """
    main = ablations["main"]
    yield _ways(
        "Main comparison (the paper's T1)",
        ablations["rows"],
        ablations,
        latency,
        "Repairing bad quantization shows against the rows at full depth; what routing itself adds, only against the "
        "head at the last block that was trained in the same way.",
    )
    if comparisons := ablations.get("comparisons"):
        yield comparisons_table(comparisons, main)
    yield _ways(
        f"Factorial (T3), on {main}",
        ablations["factorial"],
        ablations,
        None,
        "What the head, the distillation and the routing each bring.",
    )
    quadrants = {f"LRA-EE on {main}, mean of the seeds": ablations["quadrants"]}
    yield quadrants_table(quadrants if bundle is None else quadrants | {"this bundle": bundle["quadrants"]})


def _ways(title: str, rows: Sequence[Row], ablations: Row, latency: Row | None, note: str) -> Table:
    main = ablations["main"]
    header = ["way to run", "top-1", "FLOPs saved", *(["latency saved"] if latency else [])]
    header += [f"against {main}", "against SSA at the last block", "against FP32"]
    cells = []
    for row in rows:
        line = [row["name"], accuracy(row["accuracy"]), _saved(row)]
        if latency:
            timed = latency["rows"].get(row["name"])
            line.append("" if timed is None else percent(timed["saved"], 1))
        line += [points(row[f"difference_to_{key}"]) for key in ("int8", "ssa_last", "float")]
        cells.append(line)
    return Table(title=title, note=note, header=header, rows=cells, highlight=[f"LRA-EE on {main}"])


def comparisons_table(comparisons: Row, main: str) -> Table:
    """T2: every method at the FLOPs that LRA-EE saves."""
    rows = []
    for row in comparisons["rows"]:
        if row["accuracy"] is None:
            rows.append([row["name"], "cannot save this much", MISSING, MISSING, MISSING])
            continue
        is_reference = row["name"] == "LRA-EE"
        rows.append(
            [
                row["name"],
                accuracy(row["accuracy"]),
                _saved(row),
                "" if is_reference else points(row["difference_to_lra_ee"]),
                points(row["difference_to_int8"]),
            ]
        )
    return Table(
        title="Other ways to leave early, at the same FLOPs (T2)",
        note=f"Each method is set on the gating split to save at least what LRA-EE saves there; LRA-EE then saves "
        f"{percent(comparisons['matched'], 1)} on the evaluation split. What each saves on it is measured anew. "
        f"By intervals that leave zero out: {verdict_text(comparisons) or 'nothing to compare.'}",
        header=["method", "top-1", "FLOPs saved", "against LRA-EE", f"against {main}, full depth"],
        rows=rows,
        highlight=["LRA-EE"],
    )


def verdict_text(comparisons: Row) -> str | None:
    """Which methods beat LRA-EE and which it beats, by intervals that leave zero out; None when it has no saving."""
    rows = [row for row in comparisons["rows"] if not row["name"].startswith("LRA-EE") and row["accuracy"] is not None]
    if not rows:
        return None
    better = [row["name"] for row in rows if row["difference_to_lra_ee"]["low"] > 0]
    worse = [row["name"] for row in rows if row["difference_to_lra_ee"]["high"] < 0]
    even = [row["name"] for row in rows if row["name"] not in {*better, *worse}]
    kinds = (("LRA-EE loses to", better), ("It is level with", even), ("It beats", worse))
    return " ".join(f"{words}: {'; '.join(names) or 'none'}." for words, names in kinds)


def precisions_table(precisions: Row) -> Table:
    """Full depth at every precision."""
    rows = [
        [row["name"], accuracy(row["accuracy"]), "" if row["name"] == "FP32" else points(row["difference_to_float"])]
        for row in precisions["rows"]
    ]
    return Table(
        title="Every precision at full depth",
        note=f"{precisions['images']:,} images that no other step has seen. Nothing leaves early here: this is what "
        "quantization alone costs.",
        header=["precision", "top-1", "against FP32"],
        rows=rows,
    )


def quadrants_table(quadrants: Mapping[str, Mapping[str, float]]) -> Table:
    """T4; whole numbers for one run, one digit for a mean of seeds."""
    rows = []
    for name, counts in quadrants.items():
        total = sum(counts[key] for key in QUADRANTS)
        cells = [f"{counts[k]:,}" if isinstance(counts[k], int) else f"{counts[k]:,.1f}" for k in QUADRANTS]
        rows.append([name, *cells, f"{100 * (counts['rescue'] - counts['loss']) / total:+.2f}"])
    return Table(
        title="Four quadrants (T4), images",
        note="Rescue: right with exits, wrong at full depth. Loss: the other way round. Net: their difference in "
        "points of all images.",
        header=["with exits", *QUADRANTS.values(), "net"],
        rows=rows,
    )


def selectivity_table(seeds: Sequence[Row]) -> Table | None:
    """Accuracy of images that left and that went on; None where only shares were measured."""
    known = [seed for seed in seeds if seed.get("left_accuracy") is not None]
    if not known:
        return None
    keys = ("left_early", "left_accuracy", "full_accuracy_of_left", "stayed_accuracy", "full_accuracy_of_stayed")
    return Table(
        title="Selectivity of the gates",
        note="A gate that chooses well lets images go that are right already. Full depth beside it, on the same "
        "images, tells easy images from good exits.",
        header=["seed", "left early", "of these right", "at full depth", "of the others right", "at full depth"],
        rows=[
            [str(number), *(MISSING if seed.get(key) is None else percent(seed[key]) for key in keys)]
            for number, seed in enumerate(seeds, start=1)
        ],
    )


def promise_table(promise: Row) -> Table:
    """How often chosen thresholds lost more than was promised."""
    rows = [
        [
            check["name"],
            "broken" if not check["kept"] else "kept (no exit open)" if check["closed"] == 1 else "kept",
            f"{100 * check['epsilon']:g} points",
            percent(1 - check["delta"], 0),
            percent(check["exceeded"], 1),
            percent(check["exceeded_on_pool"], 1),
            percent(check["limit"], 1),
            f"{100 * check['mean_drop']:+.2f}",
            percent(check["mean_saved"], 1),
            percent(check["closed"], 1),
        ]
        for check in promise["checks"]
    ]
    checks = promise["checks"]
    return Table(
        title="Is the promise kept?",
        note=f"Thresholds that promise to lose no more than so much, chosen {checks[0]['repeats']} times on random "
        f"images and judged on {checks[0]['images']:,} others. Kept: the promised loss was exceeded no more often, on "
        "those or on all images, than the limit, which luck alone explains.",
        header=["chooser", "promise", "may lose", "with probability", "exceeded", "on all images", "limit",
                "mean loss in points", "FLOPs saved", "opened no exit"],
        rows=rows,
    )  # fmt: skip


def noise_table(profiles: Mapping[str, NoiseProfile], pruned: Mapping[str, Sequence[int]]) -> Table:
    """What quantization does to the answer at full depth, and which exits it forbids."""
    rows = []
    for name, profile in profiles.items():
        drift = profile.embedding
        cells = [name, f"{drift.cosine:.5f}", f"{drift.angle_degrees:.2f}", percent(drift.flipped, 1)]
        if pruned:
            cells.append(", ".join(str(block) for block in pruned.get(name, [])) or "none")
        rows.append(cells)
    return Table(
        title="What the noise does to the embedding",
        note="At full depth: mean cosine to FP32, mean angle between the two, and the share of images whose answer is "
        "another." + (" Pruned: candidate exits whose INR is below half the candidates' mean." if pruned else ""),
        header=["precision", "cosine", "angle in degrees", "answers changed", *(["pruned exits"] if pruned else [])],
        rows=rows,
    )


def heads_table(heads: Mapping[str, Sequence[float]]) -> Table:
    """What a head should read."""
    depth = max(len(values) for values in heads.values())
    return Table(
        title="What a head should read",
        note="Top-1 in % of a head behind each block, each answering for all images; one seed.",
        header=["head reads", *(str(block) for block in range(1, depth + 1))],
        rows=[[READS.get(reads, reads), *(f"{100 * v:.1f}" for v in values)] for reads, values in heads.items()],
    )


def _saved(row: Row) -> str:
    """With its standard deviation over the seeds, if there is one."""
    spread = f" ± {100 * row['flops_saved_std']:.1f}" if row["flops_saved_std"] else ""
    return percent(row["flops_saved"], 1) + spread
