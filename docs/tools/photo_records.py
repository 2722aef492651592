"""What was measured on natural photos, as tables and sentences."""

from __future__ import annotations

from records import BENCHMARKS, Record, evidence, percent, points, read, table

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
    return read(path) if path.is_file() else None


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
