"""What `make evidence` measured on the shipped model, as tables and sentences."""

from __future__ import annotations

from records import Record, evidence, percent, points, table

COMPARED = {
    "confidence_shared": "confidence, one threshold",
    "branchynet": "BranchyNet: entropy, free LCT",
    "cls_ee": "CLS-EE: [CLS] heads, confidence",
    "pabee_everywhere": "PABEE, exits after every candidate block",
    "token_merging": "token merging alone, as many in every block (ToMe)",
    "token_pruning": "token pruning (in the manner of AdaViT)",
}
"""Methods of the comparison that a document shows; benchmarks/evidence has all."""


def routing_table() -> str:
    """What routing adds on the reference (the paper's T1)."""
    ablations = evidence()["ablations"]
    main = ablations["precision"]
    rows = {(row["way"], row["precision"]): row for row in ablations["main"]}
    shown = (
        ("full", "FP32", "FP32, full depth"),
        ("full", "naive INT8", "naive INT8, full depth"),
        ("full", main, f"{main}, full depth"),
        ("ssa_last", main, f"{main}, with a head like those of the exits at the end"),
        ("routed", main, f"**LRA-EE on {main}**"),
        ("routed_merged", main, f"**LRA-EE and merged tokens on {main}**"),
        ("routed_label_free", main, f"**LRA-EE on {main}, trained without labels**"),
        ("routed_merged_label_free", main, f"**LRA-EE and merged tokens on {main}, trained without labels**"),
        ("routed_ssa", main, f"LRA-EE on {main}, heads as in the paper (SSA)"),
    )
    there = [(words, rows[way, name]) for way, name, words in shown if (way, name) in rows]
    lines = [_accuracy_row(words, row, "difference_to_float") for words, row in there]
    lines[0][-1] = ""
    head = [f"{ablations['images']:,} images, {ablations['seeds']} seeds", "top-1", "FLOPs saved", "points to FP32"]
    return table(head, lines)


BOTH_AXES = {
    "routed": "exits",
    "routed_merged": "exits and merged tokens",
    "routed_label_free": "exits, without labels",
    "routed_merged_label_free": "exits and merged tokens, without labels",
}
"""Ways to run that are compared at every saving."""


def frontier_table() -> str:
    """What each way to run loses where it has to save at least a share of the FLOPs, from half on."""
    ablations = evidence()["ablations"]
    lines = []
    for level, rows in ablations.get("frontier", {}).items():
        found = {row["way"]: row for row in rows}
        if int(level) >= 50:
            lines.append([f"{level} %", *(_saved_and_lost(found.get(way)) for way in BOTH_AXES)])
    if not lines:
        return "Not measured yet."
    return table(["saved, gating split", *BOTH_AXES.values()], lines)


def _saved_and_lost(row: Record | None) -> str:
    return "" if row is None else f"{percent(row['flops_saved'])}: {points(row['difference_to_float'])}"


def methods_table() -> str:
    """Other methods of early exit at the same FLOPs (the paper's T2)."""
    others = {row["method"]: row["at_match"] for row in evidence()["ablations"]["methods"]["rows"]}
    lines = [
        [name, "", "cannot save as much", ""]
        if others[method] is None
        else _accuracy_row(name, others[method], "difference_to_lra_ee")
        for method, name in COMPARED.items()
    ]
    return table(["at the same FLOPs", "top-1", "FLOPs saved", "points to LRA-EE"], lines)


def cuts_sentence() -> str:
    """Early exit against a tower that is cut after one exit, whose head then answers every image.

    Only blocks whose exit the recorded bundle keeps can be cut at. Accuracies are means over the same images.
    """
    rows = evidence()["evaluation"]["rows"]
    cuts = {int(row["block"]): row for row in rows if row["kind"] == "exit"}
    routed = next(row for row in rows if row["point"] == "balanced")
    as_good = {block: row for block, row in cuts.items() if row["accuracy"]["mean"] >= routed["accuracy"]["mean"]}
    begun = (
        "Cutting the tower after one block is the simplest way to save. In the recorded bundle (seed 0, exits after "
        f"blocks {', '.join(str(block) for block in sorted(cuts))}) `balanced` answers "
        f"{percent(routed['accuracy']['mean'], 2)} right and saves {percent(routed['flops_saved'])} of the FLOPs."
    )
    if not as_good:
        best = max(cuts, key=lambda block: float(cuts[block]["accuracy"]["mean"]))
        return (
            f"{begun} No cut is as accurate: the best, after block {best}, answers "
            f"{percent(cuts[best]['accuracy']['mean'], 2)} right and saves {percent(cuts[best]['flops_saved'])}."
        )
    cheapest = max(as_good, key=lambda block: float(as_good[block]["flops_saved"]))
    saved = percent(as_good[cheapest]["flops_saved"])
    return f"{begun} The cheapest cut that is as accurate is after block {cheapest} and saves {saved}."


def outliers_table() -> str:
    """What the quantizers do where outlier channels make INT8 fail."""
    lines = []
    for study, words in (("outliers", "`reference`"), ("b32-outliers", "`reference-b32`")):
        metrics = evidence(study)
        if (found := metrics["precisions"]) is not None:
            right = {row["precision"]: row["accuracy"]["mean"] for row in found["rows"]}
        else:
            rows = [row for row in metrics["ablations"]["main"] if row["way"] == "full"]
            right = {row["precision"]: row["accuracy"]["mean"] for row in rows}
        last = {name: metrics["noise"][name]["blocks"][-1] for name in ("naive INT8", "strong INT8")}
        noise = [f"{100 * block['delta_quant'] / block['delta_nat']:.3g} %" for block in last.values()]
        lines.append([words, *(percent(right[name], 2) for name in ("FP32", "naive INT8", "strong INT8")), *noise])
    head = ["outlier channels times 128", "FP32", "naive INT8", "strong INT8", "noise, naive", "noise, strong"]
    return table(head, lines)


def promise_table() -> str:
    """Whether the guarantee of risk control held when the images were divided again and again."""
    risk = evidence()["ablations"]["risk"]
    checks = [(f"risk-controlled, {100 * check['epsilon']:g} points", check) for check in risk["controlled"]]
    lines = [
        [
            name.replace("1 points", "1 point"),
            percent(check["exceeded"]),
            percent(check["limit"], 0),
            "yes" if max(check["exceeded"], check["exceeded_on_pool"]) <= check["limit"] else "**no**",
            percent(check["mean_saved"]),
        ]
        for name, check in [*checks, ("no test: the boldest that measures well", risk["uncontrolled"])]
    ]
    return table(["thresholds", "lost more in", "may lose more in", "guarantee kept", "FLOPs saved"], lines)


def _accuracy_row(words: str, row: Record, difference: str) -> list[str]:
    saved = ""
    if abs(row["flops_saved"]) >= 0.001:
        spread = f" ± {100 * row['flops_saved_std']:.1f}" if row["flops_saved_std"] else ""
        saved = f"{100 * row['flops_saved']:.1f}{spread} %"
    return [words, percent(row["accuracy"]["mean"], 2), saved, points(row[difference])]
