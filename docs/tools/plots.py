"""Draws the plots of the documentation from the recorded evidence.

    python docs/tools/plots.py    # writes docs/figures/noise.svg, heads.svg and pareto.svg

Each file ends with the hash of the record that it was drawn from, so that a test can tell whether it is up to date
without drawing it again: other versions of matplotlib draw the same plot with other bytes.
"""

from __future__ import annotations

import hashlib
from typing import Any

from layout import FIGURES
from records import BENCHMARKS, evidence

from lraee_toolchain.report.figures import COMPARED, MAY_FALL, noise_profiles
from lraee_toolchain.report.plots.exits import (
    AccuracyCurve,
    Front,
    Level,
    exit_accuracy_plot,
    pareto_plot,
)
from lraee_toolchain.report.plots.noise import noise_plot

RECORD = BENCHMARKS / "evidence" / "evidence.json"


def stamp() -> str:
    """The comment that says which record a plot was drawn from."""
    return f"<!-- evidence.json {hashlib.sha256(RECORD.read_bytes()).hexdigest()[:16]} -->"


def plots() -> dict[str, str]:
    """Each plot as SVG, by file name."""
    metrics = evidence()
    rows = {row["name"]: row for row in metrics["ablations"]["rows"]}
    int8 = f"{metrics['ablations']['main']}, full depth"
    levels = [Level(label=name, accuracy=rows[name]["accuracy"]["mean"]) for name in ("FP32, full depth", int8)]
    heads = {
        reads: AccuracyCurve(blocks=tuple(range(1, len(found) + 1)), accuracy=tuple(found))
        for reads, found in metrics["ablations"]["heads"].items()
    }
    depth = max(len(curve.blocks) for curve in heads.values())
    return {
        "noise.svg": noise_plot(noise_profiles(metrics)),
        "heads.svg": exit_accuracy_plot(heads, depth=depth, levels=levels),
        "pareto.svg": pareto_plot(_fronts(metrics, levels[-1].accuracy - MAY_FALL), chosen=None, levels=levels),
    }


def _fronts(metrics: dict[str, Any], floor: float) -> list[Front]:
    """The front of LRA-EE, and for each method compared with it the longest one."""
    rows = [row for row in metrics["ablations"]["comparisons"]["rows"] if row["front"]]
    picked = {"LRA-EE": next(row for row in rows if row["name"] == "LRA-EE")}
    for beginning in COMPARED:
        if found := [row for row in rows if row["name"].startswith(beginning)]:
            picked[beginning] = max(found, key=lambda row: len(row["front"]))
    fronts = {
        label: sorted({(at["saved"], at["accuracy"]) for at in row["front"] if at["accuracy"] >= floor})
        for label, row in picked.items()
    }
    return [
        Front(label=label, saved=tuple(saved for saved, _ in places), accuracy=tuple(right for _, right in places))
        for label, places in fronts.items()
        if places
    ]


def main() -> None:
    """Write every plot."""
    for name, svg in plots().items():
        (FIGURES / name).write_text(f"{svg.rstrip()}\n{stamp()}\n", "utf-8")


if __name__ == "__main__":
    main()
