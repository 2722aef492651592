"""Draws latency and memory of the HTTP service under load, from what `make soak-serve` recorded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lraee_toolchain.report.plots.style import COLOURS, GREY, page

LOADS = {"low": "a tenth of\nthe capacity", "at": "the capacity", "above": "twice the\ncapacity"}
"""Loads of the plot, from the lowest on."""


def service_plot(record: Mapping[str, Any]) -> str:
    """Draw p50 and p99 by load, with the time limit, and below them memory over time at twice the capacity."""
    phases = {phase["name"]: phase for phase in record["phases"] if not phase["policy"] and phase["name"] in LOADS}
    description = "Latency of accepted requests by load, and memory over time at twice the capacity"
    with page("service", description, height_inches=5.0) as drawn:
        upper, lower = drawn.figure.subplots(2, 1)
        places = range(len(LOADS))
        for number, (key, words) in enumerate((("p50_ms", "p50"), ("p99_ms", "p99"))):
            values = [phases[name][key] for name in LOADS]
            upper.bar(
                [place + 0.36 * number - 0.18 for place in places], values, 0.34, color=COLOURS[number], label=words
            )
        upper.axhline(1000 * record["time_limit_s"], color=GREY, linestyle=(0, (4, 3)), label="time limit")
        upper.set_xticks(places, list(LOADS.values()))
        upper.set_yscale("log")
        upper.set_ylabel("latency (ms)")
        memory = phases["above"]["rss_mb"]
        step = phases["above"]["seconds"] / max(len(memory) - 1, 1)
        lower.plot([step * at for at in range(len(memory))], memory, color=COLOURS[0])
        lower.set_ylim(bottom=0)
        lower.set_xlabel("seconds at twice the capacity")
        lower.set_ylabel("memory (MB)")
        drawn.legend(upper)
    return drawn.svg
