"""The plots of a report, from its metrics; each is left out when its numbers are not there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lraee.bundle.manifest import Manifest
from lraee.bundle.strict_json import decode
from lraee_benchmarks.analysis.intervals import Estimate
from lraee_exporters.graphs.exit import HEAD_INPUTS
from lraee_toolchain.quantization.noise import NoiseProfile
from lraee_toolchain.report.bundle_tables import by_depth, default_row, precision_name
from lraee_toolchain.report.plots.exits import (
    AccuracyCurve,
    ExitShare,
    Front,
    Level,
    Marker,
    Quadrants,
    Selectivity,
    exit_accuracy_plot,
    exit_shares_plot,
    pareto_plot,
    quadrants_plot,
    selectivity_plot,
)

Row = Mapping[str, Any]

COMPARED = ("PABEE", "CLS-EE", "confidence", "BranchyNet", "token pruning")
"""Beginnings of the names of methods whose fronts are drawn; all are in the table."""

MAY_FALL = 0.08
"""Accuracy below full depth at which a front leaves the plot, so that what matters can be told apart."""


def noise_profiles(metrics: Row) -> dict[str, NoiseProfile]:
    """By precision."""
    noise: Row = metrics.get("noise") or {}
    return {name: decode(NoiseProfile, profile, f"noise of {name}") for name, profile in noise.items()}


def levels_of(manifest: Manifest, metrics: Row) -> list[Level]:
    """FP32 and the bundle's precision at full depth."""
    evaluation = metrics["evaluation"]
    full = next(row for row in evaluation["rows"] if row["name"] == "full depth")
    levels = [Level(label="FP32, full depth", accuracy=evaluation["float"]["accuracy"]["mean"])]
    if (name := precision_name(manifest)) != "FP32":
        levels.append(Level(label=f"{name}, full depth", accuracy=full["accuracy"]["mean"]))
    return levels


def draw_heads(manifest: Manifest, metrics: Row) -> str:
    """Accuracy of a head behind every block, by what it reads."""
    heads = metrics["ablations"]["heads"]
    curves = {
        reads: AccuracyCurve(blocks=tuple(range(1, len(heads[reads]) + 1)), accuracy=tuple(heads[reads]))
        for reads in HEAD_INPUTS
        if reads in heads
    }
    return exit_accuracy_plot(curves, depth=manifest.tower.blocks, levels=levels_of(manifest, metrics))


def draw_pareto(manifest: Manifest, metrics: Row) -> str:
    """Accuracy over FLOPs saved, on images that no choice was made on.

    With a comparison, the fronts of LRA-EE and of some other methods, mean of the seeds; without, the bundle's own
    operating points and fixed exits.
    """
    levels = levels_of(manifest, metrics)
    ablations = metrics["ablations"] or {}
    if comparisons := ablations.get("comparisons"):
        floor = levels[-1].accuracy - MAY_FALL
        compared = _compared(comparisons["rows"])
        fronts = [_front(label, row["front"], floor) for label, row in compared.items()]
        fronts += _cuts(metrics, floor)
        chosen = next((_marker(row, "LRA-EE, chosen") for row in comparisons["rows"] if row["name"] == "LRA-EE"), None)
        return pareto_plot([front for front in fronts if front.saved], chosen=chosen, levels=levels)
    rows = metrics["evaluation"]["rows"]
    points = [row for row in rows if row["name"].startswith("adaptive=")]
    places = [{"saved": row["flops_saved"], "accuracy": row["accuracy"]["mean"]} for row in points]
    front = _front("operating points of the bundle", places, 0.0)
    fronts = [front] if points else []
    fronts += _cuts(metrics, 0.0)
    default = default_row(manifest, metrics["evaluation"])
    chosen = None if default is None else _marker(default, f"{manifest.default_point}, the default")
    return pareto_plot(fronts, chosen=chosen, levels=levels)


def _cuts(metrics: Row, floor: float) -> list[Front]:
    """A smaller static model for each exit: the tower cut there, with the exit's head, for every image."""
    fixed = [row for row in metrics["evaluation"]["rows"] if row["name"].startswith("exit=")]
    places = [{"saved": row["flops_saved"], "accuracy": row["accuracy"]["mean"]} for row in fixed]
    return [_front("tower cut behind one exit", places, floor)] if fixed else []


def _compared(rows: Sequence[Row]) -> dict[str, Row]:
    """LRA-EE and, for each of `COMPARED`, the method with most points."""
    picked = {row["name"]: row for row in rows if row["name"] == "LRA-EE"}
    for beginning in COMPARED:
        found = [row for row in rows if row["name"].startswith(beginning) and row["front"]]
        if found:
            picked[beginning] = max(found, key=lambda row: len(row["front"]))
    return picked


def _front(label: str, places: Sequence[Row], floor: float) -> Front:
    kept = sorted({(place["saved"], place["accuracy"]) for place in places if place["accuracy"] >= floor})
    return Front(label=label, saved=tuple(saved for saved, _ in kept), accuracy=tuple(accuracy for _, accuracy in kept))


def _marker(row: Row, label: str) -> Marker:
    return Marker(
        label=label, saved=row["flops_saved"], accuracy=row["accuracy"]["mean"], interval=Estimate(**row["accuracy"])
    )


def draw_shares(row: Row) -> str:
    """Where images leave under one policy."""
    shares = by_depth({"full": 0.0, **row["exit_shares"]})
    return exit_shares_plot(
        [ExitShare(label="full depth" if name == "full" else name, share=share) for name, share in shares.items()]
    )


def draw_quadrants(row: Row) -> str:
    """Of one policy against full depth."""
    return quadrants_plot(Quadrants(**row["quadrants"]))


def draw_selectivity(seeds: Sequence[Row]) -> str | None:
    """Images that left and that went on, as answered and at full depth; mean of the seeds, from lowest to highest."""

    def over(key: str) -> Estimate | None:
        values = [seed[key] for seed in seeds if seed.get(key) is not None]
        return Estimate(mean=sum(values) / len(values), low=min(values), high=max(values)) if values else None

    pairs = []
    for label, left, stayed in (
        ("with exits", over("left_accuracy"), over("stayed_accuracy")),
        ("same images, full depth", over("full_accuracy_of_left"), over("full_accuracy_of_stayed")),
    ):
        if left is not None and stayed is not None:
            pairs.append(Selectivity(label=label, left=left, stayed=stayed))
    return selectivity_plot(pairs, x_label="answered") if pairs else None
