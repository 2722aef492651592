"""Assemble the records of the parts: who is credited with what, with paired differences.

Four things are held apart: the tower as given, the tower tuned without exits, the tower tuned with exits at full depth,
and the same with images that leave early. Savings and losses of exits count against the bundle's own full depth.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from part_records import Record
from photo_conclusions import conclusions
from photo_parts import HEADS, PARTS, TRUNKS

from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_benchmarks.analysis.right_answers import unpack_right

Right = NDArray[np.float64]
"""(images,) share of the seeds whose answer is right."""

Parts = Mapping[str, Record]
"""Records by the name of their part."""

TRUNK_ORDER = tuple(TRUNKS)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """One row of the accounting before it is compared: which images it answers right."""

    trunk: str
    precision: str
    """``FP32`` or that of the bundles."""
    heads: str = "attention"
    """Of `HEADS`."""
    policy: str
    """``full``, a policy, or ``LRA-EE``: with heads and gates of several seeds, or the bundle's own where only these
    were fitted."""
    right: Right
    flops_saved: float = 0.0
    """Of the bundle's own full depth."""


def answered(parts: Parts) -> Iterator[Answered]:
    """Give what every part answers; of parts with attention and with pooled heads on one trunk, the first.

    Before a part with the trunk as given is recorded, its FP32 answers come from an export that tuned it.

    Args:
        parts: recorded ones.
    """
    if not any(name.startswith("given-") for name in parts):
        of_tuned = (record["metrics"]["evaluation"] for record in parts.values())
        for found in of_tuned:
            if (text := found["right"].get("given float")) is not None:
                yield Answered(
                    trunk="given", precision="FP32", policy="full", right=unpack_right(text, found["images"])
                )
                break
    for trunk in TRUNK_ORDER:
        names = [f"{trunk}-{heads}" for heads in HEADS]
        there = [name for name in names if name in parts]
        if f"{trunk}-attention" in there and f"{trunk}-pooled" in there:
            there.remove(f"{trunk}-pooled")
        for name in there:
            yield from _answered_by(parts[name], trunk, name.removeprefix(f"{trunk}-"), first=name == there[0])


def _answered_by(record: Record, trunk: str, heads: str, *, first: bool) -> Iterator[Answered]:
    """Give what one part answers; FP32 only of the first of a trunk, since all have the same."""
    evaluation, ablations = record["metrics"]["evaluation"], record["metrics"]["ablations"]
    images, precision = evaluation["images"], record["precision"]
    right = {name: unpack_right(text, images) for name, text in evaluation["right"].items()}
    saved = {row["point"]: row["flops_saved"] for row in evaluation["rows"] if row["kind"] == "adaptive"}

    def row(policy: str, values: Right, flops_saved: float = 0.0, precision: str = precision) -> Answered:
        return Answered(
            trunk=trunk, heads=heads, precision=precision, policy=policy, right=values, flops_saved=flops_saved
        )

    if first:
        yield row("full", right["float"], precision="FP32")
    yield row("full", right["full"])
    for point in saved:
        if point in ("balanced", "accurate", "fast"):
            yield row(f"adaptive={point}", right[f"adaptive={point}"], saved[point])
    if ablations is None:
        yield row("LRA-EE", right["adaptive=balanced"], saved["balanced"])
    else:
        seeds = [unpack_right(text, images) for text in ablations["routed_right"]]
        yield row("LRA-EE", np.asarray(np.mean(seeds, axis=0)), way(ablations, "routed")["flops_saved"])


def accounting(rows: Sequence[Answered]) -> list[dict[str, Any]]:
    """Compare every row with the tower as given, with the control and with its own full depth, on the same images.

    A difference is None where the row to compare with is missing, or is the row itself.
    """

    def full(trunk: str, precision: str, heads: str | None = None) -> Answered | None:
        same = (row for row in rows if (row.trunk, row.precision, row.policy) == (trunk, precision, "full"))
        return next((row for row in same if heads in (None, row.heads)), None)

    def less(row: Answered, other: Answered | None) -> dict[str, float] | None:
        if other is None or other is row:
            return None
        return dataclasses.asdict(mean_over_images(row.right - other.right))

    compared = []
    for row in rows:
        early = row.policy != "full"
        compared.append(
            {
                "trunk": row.trunk,
                "heads": row.heads,
                "precision": row.precision,
                "policy": row.policy,
                "accuracy": dataclasses.asdict(mean_over_images(row.right)),
                "to_given_float": less(row, full("given", "FP32")),
                "to_control": None if row.trunk == "given" else less(row, full("control", row.precision)),
                "to_own_full": less(row, full(row.trunk, row.precision, row.heads)) if early else None,
                "flops_saved": row.flops_saved if early else None,
            }
        )
    return compared


def way(ablations: Record, name: str, precision: str | None = None) -> Record:
    """Find a row of T1 or T3, by default at the exported precision."""
    wanted = (name, precision or ablations["precision"])
    rows: Iterable[Record] = (*ablations["main"], *ablations["factorial"])
    return next(row for row in rows if (row["way"], row["precision"]) == wanted)


def assembled(parts: Parts) -> dict[str, Any]:
    """Make the content of ``photos.json``.

    Args:
        parts: recorded ones, at least one.
    """
    tables = {name: record["metrics"]["ablations"] for name, record in parts.items()}
    studied = {name: found for name, found in tables.items() if found is not None}
    whole: dict[str, Any] = {
        "parts": [_part(part.name, parts.get(part.name)) for part in PARTS],
        "data": next(iter(parts.values()))["data"],
        "precision": next(iter(parts.values()))["precision"],
        "accounting": accounting(list(answered(parts))),
        "main": {name: found["main"] for name, found in studied.items()},
        "factorial": {name: found["factorial"] for name, found in studied.items()},
        "methods": {
            name: {row["method"]: row["at_match"] for row in found["methods"]["rows"]}
            for name, found in studied.items()
        },
        "alone": {name: found["methods"]["alone"] for name, found in studied.items()},
        "seeds": {name: found["seeds"] for name, found in studied.items()},
        "quadrants": {name: found["quadrants"] for name, found in studied.items()},
        "selectivity": {name: found["selectivity"] for name, found in studied.items()},
        "noise": {name: _noise(record) for name, record in parts.items()},
        "retrieval": {name: record["retrieval"] for name, record in parts.items()},
    }
    whole["conclusions"] = conclusions(whole)
    return whole


def _part(name: str, record: Record | None) -> dict[str, Any]:
    part = next(part for part in PARTS if part.name == name)
    there = {key: record and record[key] for key in ("hours", "machine", "adapted", "exits", "options")}
    return {"name": name, "words": part.words, "expected_hours": part.hours, "recorded": record is not None, **there}


def _noise(record: Record) -> dict[str, list[float]]:
    """Quantization noise after each block over what the block changes, by precision."""
    profiles = record["metrics"]["noise"]
    return {
        name: [block["delta_quant"] / block["delta_nat"] for block in profile["blocks"]]
        for name, profile in profiles.items()
    }
