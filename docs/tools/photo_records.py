"""What was measured on natural photos, as tables and sentences."""

from __future__ import annotations

from both_axes import AS_GIVEN, both_axes_record
from records import BENCHMARKS, Record, evidence, percent, points, read, table

BOTH_MODELS = (
    ("given", "FP32", "full", None, "FP32, full depth"),
    ("given", "INT8", "LRA-EE", "distilled", "early exits, trunk as given"),
    ("given", "INT8", "LRA-EE", "merged", "the same, and merged tokens"),
    ("labels", "INT8", "full", None, "trunk tuned with exits, full depth"),
    ("labels", "INT8", "LRA-EE", None, "early exits, trunk tuned with labels"),
)
"""Rows of the README's first table: trunk, precision, policy and heads as in photos.json (None: the first of that
trunk), and what it is called."""


def photos() -> Record | None:
    """What `make evidence-photos` measured; None before any part of it is recorded."""
    path = BENCHMARKS / "evidence" / "photos.json"
    return read(path) if path.is_file() else None


def both_models_table() -> str:
    """The README's first table: early exits on the reference, and on natural photos where they were measured."""
    main = {(row["way"], row["precision"]): row for row in evidence()["ablations"]["main"]}
    exported, natural = evidence()["ablations"]["precision"], photos()
    of_reference = {
        "FP32, full depth": main["full", "FP32"],
        "early exits, trunk as given": main["routed", exported],
        "the same, and merged tokens": _merged_on_reference(),
    }
    lines = []
    for *key, words in BOTH_MODELS:
        one, other = of_reference.get(words), None if natural is None else _row(natural, *key)
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


def _row(natural: Record, trunk: str, precision: str, policy: str, heads: str | None) -> Record | None:
    """Find the first row of the accounting that fits."""
    fitting = [
        row
        for row in natural["accounting"]
        if (row["trunk"], row["precision"].split()[-1], row["policy"]) == (trunk, precision, policy)
    ]
    return next((row for row in fitting if heads in (None, row["heads"])), None)


def _merged_on_reference() -> Record:
    """Both axes on the shipped model, as a row of the comparison."""
    record = both_axes_record()
    (row,) = (row for row in record["rows"] if row["to"] == AS_GIVEN)
    accuracy = {"mean": record["accuracy"]}
    saved = sum(record["flops_saved"]) / len(record["flops_saved"])
    return {"accuracy": accuracy, "flops_saved": saved, "difference_to_float": row["difference"]}


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


def ways_on_photos() -> str:
    """What heads that also learn from FP32, and merged tokens, add on natural photos whose trunk is as given."""
    natural = photos()
    rows = {row["heads"]: row for row in ([] if natural is None else natural["accounting"]) if _is_given_routed(row)}
    if not {"attention", "distilled", "merged"} <= set(rows):
        return "What they give on natural photos is not recorded yet; `make evidence-photos` measures it."
    labels, both, merged = (
        f"{percent(rows[heads]['flops_saved'])} at {points(rows[heads]['to_own_full'])} points"
        for heads in ("attention", "distilled", "merged")
    )
    return (
        "On the natural photos of [the evidence](results.md#natural-photos), with the trunk as given, heads that learn "
        f"from labels alone save {labels} to all blocks, with `--label-share 0.3` {both}, and with merged tokens on "
        f"top {merged} (`make evidence-photos`)."
    )


def _is_given_routed(row: Record) -> bool:
    return (row["trunk"], row["policy"]) == ("given", "LRA-EE")


def unseen_classes() -> str:
    """What tuning the trunk costs on classes that it does not see; how to measure it before it is recorded."""
    path = BENCHMARKS / "evidence" / "unseen-classes.json"
    readme = "../benchmarks/evidence/README.md#unseen-classes"
    if not path.is_file():
        return (
            "What tuning costs at full depth on classes that it does not see is not recorded yet; "
            f"`make evidence-unseen` measures it over [four folds of the classes]({readme}), given a model and photos."
        )
    found = read(path)
    return (
        "Tuning may also move the answers on classes that it does not see. `make evidence-unseen` tunes the trunk over "
        f"[{found['folds']} folds]({readme}), each without {found['unseen_labels']} of {found['labels']} classes. "
        f"{found['conclusion']} [All figures](../benchmarks/evidence/unseen-classes.md)."
    )


def photo_bundle_table() -> str:
    """What the shipped photo bundle was measured to do, from the record of its export."""
    record = read(BENCHMARKS / "evidence" / "photo_clip.json")
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
