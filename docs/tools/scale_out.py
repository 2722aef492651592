"""The cost model of a billion images and what runs over Ray were measured to do, from ``ray_scale.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from records import BENCHMARKS, percent, table

RECORD = BENCHMARKS / "experiments" / "ray_scale.json"
IMAGES = 10**9

WORDS = {
    ("classify", "full"): "classify, full depth",
    ("embed", "full"): "embed, full depth",
    ("features", "full"): "features, full depth",
}
"""What rows are called; others are named by their policy."""

SOURCES = {"photos": "the shipped photos", "pool": "Tiny-ImageNet-200", "test": "Tiny-ImageNet-200"}
"""What the images are called, by the name of their folder or zip."""

Row = Mapping[str, Any]


def _record() -> Mapping[str, Any]:
    return json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}


def _full(rows: Sequence[Row], row: Row) -> Row:
    """The row of the same images and bundle that classifies at full depth."""
    return next(
        other
        for other in rows
        if (other["images"], other["bundle"], other["kind"], other["policy"])
        == (row["images"], row["bundle"], "classify", "full")
    )


def cost_table() -> str:
    """What a billion images cost at each operating point of each bundle that was measured."""
    cost = _record()["cost"]
    rows = cost["result"]
    lines = []
    for row in rows:
        whole = _full(rows, row)
        saved = 1 - row["cpu_seconds"] / whole["cpu_seconds"]
        is_compared = row["kind"] == "classify" and row is not whole
        lines.append(
            [
                f"`{row['bundle']}`",
                WORDS.get((row["kind"], row["policy"]), f"{row['kind']}, `{row['policy']}`"),
                f"{1 / row['cpu_seconds']:,.1f}",
                f"{IMAGES * row['cpu_seconds'] / 3600:,.0f}",
                percent(saved) if is_compared else "",
                f"{IMAGES * row['read_bytes'] / 1e12:,.1f}",
                f"{IMAGES * row['written_bytes'] / 1e12:,.2f}",
            ]
        )
    head = ["bundle", "run", "images per core-second", "core-hours", "saved", "TB read", "TB written"]
    return f"{table(head, lines, left=2)}\n\n{_conditions(cost)}"


def _conditions(cost: Mapping[str, Any]) -> str:
    sources = {row["images"]: row for row in cost["result"]}
    said = ", ".join(
        f"{row['count']:,} of {SOURCES.get(name, name)} of {row['read_bytes'] / 1e3:,.1f} kB on average"
        for name, row in sources.items()
    )
    return f"*{cost['machine']}, one worker of one thread; {said}; {cost['date']}.*"


def cost_conclusion() -> str:
    """What early exit and merging save of a billion images, by the bundle's default operating points."""
    cost = _record()["cost"]
    rows = cost["result"]
    parts = []
    for row in rows:
        if row["kind"] != "classify" or row["policy"] not in ("adaptive=balanced", "adaptive=merged"):
            continue
        whole = _full(rows, row)
        hours, saved = (IMAGES * seconds / 3600 for seconds in (row["cpu_seconds"], whole["cpu_seconds"]))
        parts.append(
            f"The bundle `{row['bundle']}` at `{row['policy']}` takes {hours:,.0f} core-hours instead of "
            f"{saved:,.0f}, which is {percent(1 - hours / saved)} less."
        )
    merged = [row for row in rows if row["policy"].startswith("full@")]
    for row in merged:
        whole = _full(rows, row)
        share = percent(1 - row["cpu_seconds"] / whole["cpu_seconds"])
        name = row["policy"].removeprefix("full@")
        parts.append(f"Merging tokens alone, by the schedule `{name}` of `{row['bundle']}`, saves {share}.")
    if not merged:
        parts.append("No bundle that was measured merges tokens, so what merging saves is not in the table.")
    return " ".join(parts)


def kills_sentence() -> str:
    """What kills left behind."""
    kills = _record().get("kills")
    if kills is None:
        return "No run with kills is recorded yet."
    result = kills["result"]
    counts = {
        target: sum(trial["target"] == target and trial["killed"] for trial in result["trials"])
        for target in ("worker", "driver")
    }
    return (
        f"A worker was killed {counts['worker']} times and the driver {counts['driver']} times, at random moments of "
        f"runs over {result['images']:,} images. {result['failed']} of these runs ended with a file that differs from "
        f"those of an undisturbed run ({kills['date']})."
    )


def speed_sentence() -> str:
    """How two workers compare with one."""
    speed = _record().get("speed")
    if speed is None:
        return "No run with two workers against one is recorded yet."
    result, seconds = speed["result"], speed["result"]["seconds"]
    return (
        f"Two workers on two cores classify {result['images']:,} images with `{result['bundle']}` in "
        f"{seconds['two_workers']:,.0f} s where one takes {seconds['one_worker']:,.0f} s: {seconds['ratio']:.2f} times "
        f"as fast, and {result['total_seconds']['ratio']:.2f} times with the start of cluster and workers "
        f"({speed['machine']}, medians of {result['repeats']} runs in turns, {speed['date']})."
    )
