"""Tables and sentences of the documents, written from the recorded JSON files.

cog calls these functions where a document names them, and puts what they return below::

    <!-- [[[cog show(early_exit_at_b32()) ]]] -->
    <!-- [[[end]]] -->

`make figures` writes the documents again after a record changed; `make check` fails until that was done.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"

Record = Mapping[str, Any]
"""What a JSON file holds."""

SIZE_B32 = "xeon-avx512-vnni-amx-2cores-reference-b32"
TINY = "xeon-avx512-vnni-amx-2cores-reference"
"""Reports of lraee-bench in benchmarks/results, by name."""

WORDS = {
    "full": "`full`: all blocks, one by one",
    "graph": "`graph`: the same blocks as one graph",
    "fp32": "`fp32`: the float model as one graph",
}
"""What rows of lraee-bench are called in a document; the others keep their names."""

COMPARED = {
    "confidence_shared": "confidence, one threshold",
    "branchynet": "BranchyNet: entropy, free LCT",
    "cls_ee": "CLS-EE: [CLS] heads, confidence",
    "pabee_everywhere": "PABEE, exits after every candidate block",
    "token_merging": "token merging alone, as many in every block (ToMe)",
    "token_pruning": "token pruning (in the manner of AdaViT)",
}
"""Methods of the comparison that a document shows; benchmarks/evidence has all."""


def show(text: str) -> None:
    """Write a text where cog runs, with blank lines around it and its prose broken at 120 characters."""
    import cog

    paragraphs = (
        paragraph if paragraph.startswith(("|", "#", "-", "`", "*")) else _broken(paragraph)
        for paragraph in text.split("\n\n")
    )
    cog.outl("\n" + "\n\n".join(paragraphs) + "\n")


def evidence(study: str = "evidence") -> Record:
    """A report of `make evidence`: ``evidence``, ``outliers`` or ``b32-outliers``."""
    return _read(BENCHMARKS / "evidence" / f"{study}.json")


def bench(name: str) -> Record:
    """A report of `lraee-bench --json` in benchmarks/results."""
    return _read(BENCHMARKS / "results" / f"{name}.json")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table whose first `left` columns are words and whose others are numbers.

    >>> print(table(["row", "ms"], [["full", "13.2"]]))
    | row | ms |
    | --- | ---: |
    | full | 13.2 |
    """
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 as a percentage.

    >>> percent(0.5032)
    '50.3 %'
    """
    return f"{100 * share:.{digits}f} %"


def points(interval: Record) -> str:
    """A difference in percentage points with its interval."""
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:+z.2f} ({low:+z.2f} to {high:+z.2f})"


def early_exit_at_b32() -> str:
    """The README's table: what early exit saves on a tower of the size of ViT-B/32, and what it costs in accuracy."""
    return bench_table(SIZE_B32, ("adaptive=balanced", "full", "graph"))


def bench_table(name: str, rows: Sequence[str] | None = None) -> str:
    """Rows of one report of lraee-bench, by default all, and a line that says how they were measured."""
    report = bench(name)
    by_name = {row["name"]: row for row in report["rows"]}
    lines, images = [], 0
    for wanted in rows or by_name:
        row = by_name[wanted]
        accuracy = row["accuracy"]
        images = accuracy["images"] if accuracy else images
        kept = "" if not accuracy or row["name"] == report["reference"] else _paired(accuracy)
        interval = row["latency_saved_interval"]
        saved = f"{percent(row['latency_saved'])} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"
        lines.append(
            [
                WORDS.get(row["name"], f"`{row['name']}`"),
                f"{row['latency']['p50_ms']:.2f}",
                f"{row['latency']['p99_ms']:.2f}",
                percent(row["flops_saved"]) if abs(row["flops_saved"]) >= 0.0005 else "",
                "" if row["name"] == report["reference"] else saved,
                percent(accuracy["top1"]) if accuracy else "",
                kept,
            ]
        )
    head = ["row", "p50 ms", "p99 ms", "FLOPs saved", "latency saved", "top-1", "points to `full`"]
    if not images:
        head, lines = head[:-2], [line[:-2] for line in lines]
    return f"{table(head, lines)}\n\n{bench_conditions(report, images)}"


def bench_conditions(report: Record, images: int) -> str:
    """The circumstances of a report in one line of small print."""
    device, settings = report["device"], report["settings"]
    counted = f", top-1 on {images:,} images" if images else ""
    return (
        f"*{device['model']} ({', '.join(device['int8_features'])}), {device['cores']} cores; "
        f"{settings['threads']} thread{'s' * (settings['threads'] > 1)}, batch {settings['batch']}, "
        f"{settings['rounds']:,} interleaved rounds in {settings['launches']} launches{counted}; "
        f"ONNX Runtime {device['onnxruntime']}, {report['created'][:10]}. In brackets: 95 % intervals.*"
    )


def honest_reading() -> str:
    """The README's paragraph below its table."""
    ablations = evidence()["ablations"]
    rival = next(row["at_match"] for row in ablations["methods"]["rows"] if row["method"] == "confidence_shared")
    return (
        "The model is a small CLIP for ten kinds of clothing, widened to the exact size of ViT-B/32. Accuracy and "
        "exits are real, and every block costs what one of ViT-B/32 costs. No OpenAI or LAION checkpoint was measured, "
        "because neither weights nor ImageNet are shipped. The learned gate is no better than one threshold on "
        f"the largest probability, which is at {points(rival['difference_to_lra_ee'])} points to it over "
        f"{ablations['seeds']} seeds and {ablations['images']:,} images. INT8 loses almost nothing on this model, so "
        "there is nothing to rescue. All tables: [results](docs/results.md)."
    )


BOTH_MODELS = (
    ("given", "FP32", "full", "FP32, full depth"),
    ("given", "INT8", "LRA-EE", "early exits, trunk as given"),
    ("control", "INT8", "full", "trunk tuned without exits, full depth"),
    ("label-free", "INT8", "LRA-EE", "early exits, without labels"),
    ("labels", "INT8", "full", "trunk tuned with exits, full depth"),
    ("labels", "INT8", "LRA-EE", "early exits, trunk tuned with labels"),
)
"""Rows of the README's first table: trunk, precision and policy as in photos.json, and what it is called."""


def photos() -> Record | None:
    """What `make evidence-photos` measured; None before any part of it is recorded."""
    path = BENCHMARKS / "evidence" / "photos.json"
    return _read(path) if path.is_file() else None


def both_models_table() -> str:
    """The README's first table: early exits on the reference, and on natural photos where they were measured."""
    main = {(row["way"], row["precision"]): row for row in evidence()["ablations"]["main"]}
    exported, natural = evidence()["ablations"]["precision"], photos()
    of_reference = {
        ("given", "FP32", "full"): main["full", "FP32"],
        ("given", "INT8", "LRA-EE"): main["routed", exported],
        ("label-free", "INT8", "LRA-EE"): main.get(("routed_label_free", exported)),
    }
    rows = () if natural is None else natural["accounting"]
    of_photos = {(row["trunk"], row["precision"].split()[-1], row["policy"]): row for row in rows}
    lines = []
    for *key, words in BOTH_MODELS:
        one, other = of_reference.get((key[0], key[1], key[2])), of_photos.get((key[0], key[1], key[2]))
        if one is None and other is None:
            continue
        cells = _gain(one, "difference_to_float", is_reference=key[1] == "FP32")
        if natural is not None:
            cells += _gain(other, "to_given_float", is_reference=key[1] == "FP32")
        lines.append([words, *cells])
    head = ["top-1", "FLOPs saved", "points to FP32"]
    heads = [f"`reference`: {head[0]}", *head[1:]]
    heads += [] if natural is None else [f"natural photos: {head[0]}", *head[1:]]
    return table(["", *heads], lines)


def _gain(row: Record | None, difference: str, *, is_reference: bool) -> list[str]:
    """Top-1, FLOPs saved and difference of a row; empty where it was not measured."""
    if row is None:
        return ["", "", ""]
    saved, apart = row["flops_saved"] or 0.0, None if is_reference else row[difference]
    return [
        percent(row["accuracy"]["mean"], 2),
        percent(saved) if abs(saved) >= 0.0005 else "",
        "" if apart is None else points(apart),
    ]


def photo_conclusions() -> str:
    """What the evidence on natural photos says, as a list; a line that says so before it is measured."""
    natural = photos()
    if natural is None:
        return "No part of it is recorded yet."
    return "\n".join(f"- {sentence}" for sentence in natural["conclusions"])


def unseen_classes() -> str:
    """What tuning the trunk costs on classes that it does not see; how to measure it before it is recorded."""
    path = BENCHMARKS / "evidence" / "unseen-classes.json"
    readme = "../benchmarks/evidence/README.md#unseen-classes"
    if not path.is_file():
        return (
            "What tuning costs at full depth on classes that it does not see is not recorded yet; "
            f"`make evidence-unseen` measures it over [four folds of the classes]({readme}), given a model and photos."
        )
    found = _read(path)
    return (
        "Tuning may also move the answers on classes that it does not see. `make evidence-unseen` tunes the trunk over "
        f"[{found['folds']} folds]({readme}), each without {found['unseen_labels']} of {found['labels']} classes. "
        f"{found['conclusion']} [All figures](../benchmarks/evidence/unseen-classes.md)."
    )


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


def photo_bundle_table() -> str:
    """What the shipped photo bundle was measured to do, from the record of its export."""
    record = _read(BENCHMARKS / "evidence" / "photo_clip.json")
    lines = [["FP32 tower as given", _share(record["given"]["accuracy"]), "", "", ""]]
    for row in record["rows"]:
        name = "all blocks" if row["kind"] == "full" else f"`adaptive={row['point']}`"
        own = "" if row["kind"] == "full" else points(row["difference_to_full"])
        saved = "" if row["kind"] == "full" else percent(row["flops_saved"])
        lines.append([name, _share(row["accuracy"]), saved, own, points(row["difference_to_given"])])
    head = ["", "top-1", "FLOPs saved", "points to all blocks", "points to the tower as given"]
    blocks = ", ".join(str(exit["block"]) for exit in record["exits"])
    return (
        f"{table(head, lines)}\n\n*{record['images']:,} photos of the same 200 classes that nothing learned from; 95 % "
        f"intervals in brackets. {record['size_bytes'] / 1e6:.1f} MB, exits after blocks {blocks}; "
        f"{record['machine']}; ONNX Runtime {record['versions']['onnxruntime']}.*"
    )


def _share(interval: Record) -> str:
    """A share with its interval, in percent."""
    return f"{100 * interval['mean']:.1f} % ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


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


def speed_ratio_table() -> str:
    """Time of the chain of blocks over other ways to run a ViT-B/32 of random weights."""
    record = _read(next(path for path in sorted(BENCHMARKS.glob("*/*-2cores.json"))))
    ratios: dict[str, dict[str, Record]] = {}
    for name, ratio in record["ratios"].items():
        where, _, what = name.partition(": ")
        ratios.setdefault(what, {})[where.partition(", ")[2].replace("1 threads", "1 thread")] = ratio
    settings = list(next(iter(ratios.values())))
    words = {
        "chain / fp32": "FP32, ONNX Runtime",
        "chain / static": "static INT8 with ONNX Runtime's own quantizer",
        "chain / openvino": "OpenVINO, the same INT8 graph",
        "chain / graph": "the same blocks as one graph",
    }
    words |= {name: "its bare INT8 GEMMs" for name in ratios if name.startswith("chain / bare")}
    lines = [[words[name], *(_ratio(ratios[name][where]) for where in settings)] for name in words]
    return (
        f"{table(['chain of blocks over', *settings], lines)}\n\n*{record['model']}, 2 cores, a process for each row.*"
    )


def towers_table() -> str:
    """Whole towers with random weights: size, time and parity with torch."""
    record = _read(next(path for path in sorted(BENCHMARKS.rglob("towers.json"))))
    lines = []
    for row in record["rows"]:
        done = row["exported"]
        lines.append(
            [
                done["model"],
                f"{row['depth']} x {row['width']}, {row['tokens']}",
                f"{row['pooling']}, {row['probabilities']}",
                f"{row['gflops']:.1f}",
                f"{row['int8_megabytes']:.0f}",
                f"{done['seconds']:.0f}",
                f"{done['worst_error']:.1e}, {done['worst_cosine']:.7f}",
                f"{row['ms']['1']:.1f}",
                f"{row['ms']['2']:.1f}",
            ]
        )
    head = ["model", "blocks x width, tokens", "pooling", "GFLOPs", "INT8 MB", "export s", "parity: error, cosine"]
    text = table([*head, "ms, 1 thread", "ms, 2 threads"], lines, left=3)
    return f"{text}\n\n*{record['device']['model']}, batch 1, full depth, medians of 30 runs.*"


def emulated_table() -> str:
    """Answers of emulated CPUs against those of the recording machine."""
    runs = _read(BENCHMARKS / "emulate" / "recorded.json")["runs"]
    lines = [
        [
            f"`{run['bundle'].partition(',')[0]}`",
            run["core"].replace("products saturate", "saturating kernels, which lraee never uses"),
            f"`{run['policy']}`",
            str(run["images"]),
            str(run["equal_labels"]),
            str(run["equal_exits"]),
            f"{run['least_cosine']:.5f}",
            f"{run['largest_gate_difference']:.1e}",
        ]
        for run in runs
    ]
    head = ["bundle", "CPU", "policy", "images", "labels equal", "exits equal", "least cosine", "gates, most"]
    return table(head, lines, left=3)


def _accuracy_row(words: str, row: Record, difference: str) -> list[str]:
    saved = ""
    if abs(row["flops_saved"]) >= 0.001:
        spread = f" ± {100 * row['flops_saved_std']:.1f}" if row["flops_saved_std"] else ""
        saved = f"{100 * row['flops_saved']:.1f}{spread} %"
    return [words, percent(row["accuracy"]["mean"], 2), saved, points(row[difference])]


def _paired(accuracy: Record) -> str:
    interval = accuracy["difference_interval"]
    return f"{100 * accuracy['difference']:+z.1f} ({100 * interval['low']:+z.1f} to {100 * interval['high']:+z.1f})"


def _ratio(ratio: Record) -> str:
    text = f"{ratio['value']:.2f}"
    return f"**{text}**" if ratio["low"] > 1 else text


def _broken(paragraph: str) -> str:
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def _read(path: Path) -> Record:
    found: Record = json.loads(path.read_text("utf-8"))
    return found
