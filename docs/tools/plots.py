"""Draws the plots of the documentation from the recorded evidence.

    python docs/tools/plots.py    # writes docs/figures/noise.svg, heads.svg, pareto.svg and service.svg

Each file ends with the hash of the record that it was drawn from, so that a test can tell whether it is up to date
without drawing it again: other versions of matplotlib draw the same plot with other bytes.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from layout import FIGURES
from records import BENCHMARKS, evidence
from service_plot import service_plot
from service_record import SERVICE_RECORD

from lraee.bundle.strict_json import decode
from lraee_toolchain.config.options import Precision
from lraee_toolchain.evaluation.metrics import Metrics
from lraee_toolchain.report.figures import MAY_FALL, method_fronts
from lraee_toolchain.report.names import way_name
from lraee_toolchain.report.plots.exits import Level, exit_accuracy_plot, pareto_plot
from lraee_toolchain.report.plots.noise import noise_plot

RECORD = BENCHMARKS / "evidence" / "evidence.json"


def stamp(record: Path = RECORD) -> str:
    """The comment that says which record a plot was drawn from."""
    return f"<!-- {record.name} {hashlib.sha256(record.read_bytes()).hexdigest()[:16]} -->"


def plots() -> dict[str, str]:
    """Each plot as SVG, by file name."""
    metrics = decode(Metrics, {**evidence(), "latency": None}, RECORD.name)
    ablations = metrics.ablations
    assert ablations is not None
    right = {row.precision: row.accuracy.mean for row in ablations.main if row.way == "full"}
    shown: tuple[Precision, ...] = ("FP32", ablations.precision)
    levels = [Level(label=way_name("full", name), accuracy=right[name]) for name in shown]
    fronts = method_fronts(ablations.methods, levels[-1].accuracy - MAY_FALL)
    return {
        "noise.svg": noise_plot(metrics.noise),
        "heads.svg": exit_accuracy_plot(ablations.heads, levels=levels),
        "pareto.svg": pareto_plot([front for front in fronts if front.saved], chosen=None, levels=levels),
    }


def main() -> None:
    """Write every plot."""
    for name, svg in plots().items():
        (FIGURES / name).write_text(f"{svg.rstrip()}\n{stamp()}\n", "utf-8")
    if SERVICE_RECORD.is_file():
        svg = service_plot(json.loads(SERVICE_RECORD.read_text("utf-8")))
        (FIGURES / "service.svg").write_text(f"{svg.rstrip()}\n{stamp(SERVICE_RECORD)}\n", "utf-8")


if __name__ == "__main__":
    main()
