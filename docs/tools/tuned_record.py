"""The table of `make evidence-tuned`: early exits and merged tokens on a trunk that was tuned for them."""

from __future__ import annotations

import json

import numpy as np
from records import BENCHMARKS, percent, points, table

RECORD = BENCHMARKS / "evidence" / "tuned.json"

TOWERS = {
    "as-given.lraee": "FP32, trunk as given",
    "tuned-control.lraee": "FP32, trunk tuned on the same photos without exits",
    "own full depth": "INT8, the same bundles at full depth",
}
"""What is compared with, by the record's name."""


def tuned_table() -> str:
    """What the three bundles save, and how far they are from each tower at full depth."""
    if not RECORD.is_file():
        return "Not measured yet."
    found = json.loads(RECORD.read_text("utf-8"))
    rows = {row["to"]: row for row in found["rows"]}
    saved = 100 * np.array(found["flops_saved"])
    head = [f"{found['images']:,} images, {len(saved)} seeds", "top-1", "FLOPs saved", "points to it"]
    spread = f"{saved.mean():.1f} ± {saved.std():.1f} %"
    lines = [["**LRA-EE and merged tokens, tuned**", percent(found["accuracy"], 2), spread, ""]]
    for name, words in TOWERS.items():
        lines.append([words, percent(rows[name]["accuracy"], 2), "", points(rows[name]["difference"])])
    return table(head, lines)
