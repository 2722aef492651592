"""Write what `photo_accounting` assembled as Markdown, a table for each question."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from part_records import Record
from photo_conclusions import refused_trunks
from photo_parts import HEADS, TRUNKS
from photo_words import WAYS, percent, points, saving

from lraee_benchmarks.render.method_names import METHODS
from lraee_benchmarks.render.table import MISSING, Table


def markdown(whole: Record) -> str:
    """Make ``photos.md`` from the content of ``photos.json``."""
    return "\n\n".join(_paragraphs(whole)) + "\n"


def _paragraphs(whole: Record) -> Iterator[str]:
    yield "# Early exits on natural photos"
    yield (
        "Written by `make evidence-photos` from the records of its parts. No photo of the data set is in them. "
        "Differences are paired image by image, in points, with 95 % bootstrap intervals; where there are several "
        "seeds, each has its own splits, heads, gates and thresholds, and differences are of their mean. A report of "
        "each part lies in `photos/`, with the paper's T1 to T4."
    )
    yield "## What the figures say"
    yield "\n".join(f"- {sentence}" for sentence in whole["conclusions"])
    for table in _tables(whole):
        yield f"## {table.title}"
        if table.note:
            yield table.note
        yield table.to_markdown()


def _tables(whole: Record) -> Iterator[Table]:
    yield _parts_table(whole)
    yield _accounting_table(whole)
    if whole["main"]:
        yield _precisions_table(whole)
        yield _heads_table(whole)
        yield _alone_table(whole)
        yield _methods_table(whole)
        yield _factorial_table(whole)
        yield _quadrants_table(whole)
        yield _selectivity_table(whole)
    yield _noise_table(whole)
    yield _retrieval_table(whole)


def _parts_table(whole: Record) -> Table:
    rows, hours = [], 0.0
    for part in whole["parts"]:
        took = part["hours"] if part["recorded"] else None
        hours += took or 0.0
        report = f"[{part['name']}](photos/{part['name']}.md)" if part["recorded"] else part["name"]
        state = f"{took:.2f}" if took is not None else f"**missing**, about {part['expected_hours']:g}"
        rows.append([report, part["words"], part["adapted"] or MISSING, state])
    missing = [part["name"] for part in whole["parts"] if not part["recorded"]]
    machines = list(dict.fromkeys(part["machine"] for part in whole["parts"] if part["recorded"]))
    note = f"{hours:.1f} hours in all, on {'; '.join(machines)}."
    note += f" Missing: {', '.join(missing)}." if missing else " None is missing."
    return Table(
        title="Parts and hours", note=note, header=["part", "what", "tuning", "hours"], rows=rows, words=(0, 1, 2)
    )


def _accounting_table(whole: Record) -> Table:
    rows, refused = [], refused_trunks(whole)
    for row in whole["accounting"]:
        policy = "full depth" if row["policy"] == "full" else row["policy"]
        saved = "" if row["flops_saved"] is None else percent(row["flops_saved"])
        given, control, own = (points(row[key]) for key in ("to_given_float", "to_control", "to_own_full"))
        tuned = TRUNKS[row["trunk"]][0]
        trunk = f"{tuned} (refused: as given)" if row["trunk"] in refused else tuned
        heads = "" if row["precision"] == "FP32" else f"`{row['heads']}`, "
        name = f"{trunk}, {heads}{row['precision']}, {policy}"
        rows.append([name, percent(row["accuracy"]["mean"], 2), given, control, own, saved])
    header = ["", "top-1", "to FP32 as given", "to tuned without exits, full depth"]
    return Table(
        title="Who is credited with what",
        note="After the trunk stands what its exits are: "
        + "; ".join(f"`{heads}`, {words}" for heads, (words, _) in HEADS.items())
        + ". What exits cost and save stands in the last two columns alone, against the bundle's own full depth. What "
        "tuning does at full depth stands in the rows of full depth; the control spent the same photos and passes on "
        "tuning without exits. `LRA-EE` is the mean of the seeds, `adaptive=...` the bundle of the first.",
        header=[*header, "exits: to own full depth", "exits: FLOPs saved"],
        rows=rows,
    )


def _precisions_table(whole: Record) -> Table:
    differences = ("difference_to_int8", "difference_to_ssa_last", "difference_to_float", "difference_to_given")
    rows = [
        [
            name,
            WAYS[row["way"]].format(row["precision"]),
            percent(row["accuracy"]["mean"], 2),
            saving(row),
            *(points(row[key]) for key in differences),
        ]
        for name, main in whole["main"].items()
        for row in main
    ]
    return Table(
        title="Every precision, and the main comparison (the paper's T1)",
        note="Own FP32 is that of the part's own trunk, tuned where it was tuned.",
        header=[
            *("part", "way to run", "top-1", "FLOPs saved", "to own full depth", "to SSA at the last block"),
            *("to own FP32", "to FP32 as given"),
        ],
        rows=rows,
        words=(0, 1),
    )


def _heads_table(whole: Record) -> Table:
    rows = []
    for name, main in whole["main"].items():
        routed = next(row for row in main if (row["way"], row["precision"]) == ("routed", whole["precision"]))
        cells = [name, "LRA-EE", percent(routed["accuracy"]["mean"], 2), saving(routed)]
        rows.append([*cells, points(routed["difference_to_int8"])])
        for method in ("lgvit", "lgvit_free"):
            if (found := whole["methods"][name].get(method)) is not None:
                cells = [name, METHODS[method], percent(found["accuracy"]["mean"], 2), saving(found)]
                rows.append([*cells, points(found["difference_to_int8"])])
    return Table(
        title="Heads and trunks",
        note="A part is named by its trunk and by what its heads read.",
        header=["part", "method", "top-1", "FLOPs saved", "to own full depth"],
        rows=rows,
        words=(0, 1),
    )


def _alone_table(whole: Record) -> Table:
    blocks = sorted({exit["block"] for found in whole["alone"].values() for exit in found})
    rows = []
    for name, found in whole["alone"].items():
        for reads in dict.fromkeys(exit["reads"] for exit in found):
            shares = {exit["block"]: float(np.mean(exit["per_seed"])) for exit in found if exit["reads"] == reads}
            rows.append([name, reads, *(percent(shares[b]) if b in shares else MISSING for b in blocks)])
    return Table(
        title="Every candidate exit alone",
        note="Top-1 of the exit after each block, answering for all images, mean of the seeds.",
        header=["part", "head reads", *(f"block {block}" for block in blocks)],
        rows=rows,
        words=(0, 1),
    )


def _methods_table(whole: Record) -> Table:
    parts = list(whole["methods"])
    rows = []
    for method in dict.fromkeys(name for found in whole["methods"].values() for name in found):
        cells = [METHODS[method]]
        for part in parts:
            found = whole["methods"][part].get(method)
            if found is None:
                cells += ["cannot save as much" if method in whole["methods"][part] else MISSING, ""]
            else:
                cells += [saving(found), "" if method == "lra_ee" else points(found["difference_to_lra_ee"])]
        rows.append(cells)
    return Table(
        title="Every rival at the same FLOPs (T2)",
        note="Each is set on the gating split to save at least what LRA-EE saves there. Differences are to LRA-EE.",
        header=["method", *(cell for part in parts for cell in (f"{part}: saved", "difference"))],
        rows=rows,
    )


def _factorial_table(whole: Record) -> Table:
    names = {
        "full": "(i) [CLS], full depth",
        "ssa_last_hard": "(ii) SSA at the last block, hard labels, full depth",
        "ssa_last": "(iii) SSA at the last block, distilled, full depth",
        "routed_ssa_hard": "(iv) LRA-EE with SSA heads, hard labels",
        "routed_ssa": "(v) LRA-EE with SSA heads, distilled",
    }
    rows = [
        [name, names[row["way"]], percent(row["accuracy"]["mean"], 2), saving(row), points(row["difference_to_int8"])]
        for name, found in whole["factorial"].items()
        for row in found
    ]
    header = ["part", "row", "top-1", "FLOPs saved", "to own full depth"]
    return Table(title="Factorial (T3)", header=header, rows=rows, words=(0, 1))


def _quadrants_table(whole: Record) -> Table:
    rows = []
    for name, found in whole["quadrants"].items():
        counts = [found[key] for key in ("both_right", "rescue", "loss", "both_wrong")]
        net = 100 * (found["rescue"] - found["loss"]) / sum(counts)
        rows.append([name, *(f"{count:,.0f}" for count in counts), f"{net:+z.2f}"])
    header = ["part", "both right", "rescue", "loss", "both wrong", "net in points"]
    return Table(title="Four quadrants (T4), images, mean of the seeds", header=header, rows=rows)


def _selectivity_table(whole: Record) -> Table:
    keys = ("left_early", "left_accuracy", "full_accuracy_of_left", "stayed_accuracy", "full_accuracy_of_stayed")
    rows = []
    for name, seeds in whole["selectivity"].items():
        known = [[seed[key] for seed in seeds if seed[key] is not None] for key in keys]
        rows.append([name, *(percent(float(np.mean(values))) if values else MISSING for values in known)])
    header = ["part", "left early", "of these right", "at full depth", "of the others right", "at full depth"]
    return Table(title="Selectivity of the gates, mean of the seeds", header=header, rows=rows)


def _noise_table(whole: Record) -> Table:
    named = [(name, precision, found) for name, by in whole["noise"].items() for precision, found in by.items()]
    depth = max((len(found) for _, _, found in named), default=0)
    rows = [[name, precision, *(f"{100 * share:.1f}" for share in found)] for name, precision, found in named]
    return Table(
        title="INT8 noise after each block",
        note="In % of what the block changes.",
        header=["part", "precision", *(str(block) for block in range(1, depth + 1))],
        rows=rows,
        words=(0, 1),
    )


def _retrieval_table(whole: Record) -> Table:
    rows = []
    for name, found in whole["retrieval"].items():
        for row in found["rows"]:
            if row["images"].startswith("full") and row["images"] != "full depth, float32":
                continue
            shares = (percent(row[key]) for key in ("flops_saved", "ten_in_ten", "one_in_ten", "same_label"))
            rows.append([name, row["images"], row["queries"], *shares])
    return Table(
        title="Search",
        note="Images are embedded by a policy and searched by images embedded alike, by images at full depth, or by "
        "the texts of the labels. Truth is what the same bundle finds at full depth. 10 in 10: share of the ten "
        "nearest that are found.",
        header=["part", "images", "queries", "FLOPs saved", "10 in 10", "1 in 10", "same label"],
        rows=rows,
        words=(0, 1, 2),
    )
