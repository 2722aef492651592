"""What `make soak-serve` recorded of the HTTP service under load, as a table and sentences."""

from __future__ import annotations

import json

from records import BENCHMARKS, table

SERVICE_RECORD = BENCHMARKS / "experiments" / "service" / "soak.json"
"""What `make soak-serve` wrote."""


SERVICE_BOUNDS = {
    "p99_above_ms": "the slowest hundredth of accepted requests within the time limit",
    "memory_growth_mb": "memory to stay as it is",
    "lost_at_stop": "no accepted request lost at a stop",
    "faults": "no fault",
    "files_left": "no file left open",
    "adaptive_gain": "1.5 times the requests of full depth",
    "added_ms": "at most 2 ms added at a tenth of the capacity",
}
"""What `make soak-serve` asks for, by the record's name of the bound."""


def service_table() -> str:
    """How the HTTP service did below, at and above what it can answer; how to measure it before it is recorded."""
    if not SERVICE_RECORD.is_file():
        return (
            "Nothing is recorded yet. `make soak-serve` loads the service at a tenth of what it can answer, at all of "
            "it and at twice of it, with odd requests and a stop under load, and says which bounds hold."
        )
    record = json.loads(SERVICE_RECORD.read_text("utf-8"))
    rows = [
        [
            f"{SERVICE_WORDS[phase['name']]}, {phase['policy'] or 'operating point'}",
            f"{phase['asked_per_s']:.1f}" if phase["asked_per_s"] else "",
            f"{phase['answered_per_s']:.1f}",
            *(f"{phase['statuses'].get(status, 0):,}" for status in ("429", "503")),
            *("" if phase[key] is None else f"{phase[key]:.1f}" for key in ("p50_ms", "p99_ms")),
            f"{phase['rss_mb'][-1]:.0f}",
        ]
        for phase in record["phases"]
        if phase["name"] in SERVICE_WORDS
    ]
    head = ["load", "asked a second", "answered a second", "refused", "too late", "p50 ms", "p99 ms", "memory MB"]
    device, bounds, holds = record["device"], record["bounds"], record["holds"]
    broken = [name for name in holds if not holds[name]]
    failed = " and ".join(SERVICE_BOUNDS[name] for name in broken)
    verdict = f"We want {failed}, which was not met." if broken else "All bounds that we set hold."
    said = (
        f"The time limit was {record['time_limit_s']:g} s. The operating point answered "
        f"{bounds['adaptive_gain']:.2f} times the requests of full depth. At a tenth of the capacity the service added "
        f"{bounds['added_ms']:.2f} ms to the library's own time for the same image (median). A stop under load lost "
        f"{bounds['lost_at_stop']:.0f} accepted requests, and {sum(record['odd_requests'].values()):,} odd requests "
        f"caused {bounds['faults']:.0f} faults and left {bounds['files_left']:.0f} files open. Memory grew by "
        f"{bounds['memory_growth_mb']:.1f} MB at twice the capacity. Requests that were accepted and came too late "
        f"count in the percentiles. {verdict}"
    )
    features = ", ".join(device["int8_features"]) or "no instructions for INT8 products"
    cores = len(record["service_cores"])
    small = (
        f"*{record['bundle']} on {device['model']} ({features}), {cores} core{'s' * (cores > 1)} for the service and "
        f"one for the load; ONNX Runtime {device['onnxruntime']}, {record['created'][:10]}.*"
    )
    picture = "![Latency and memory of the service under load](figures/service.svg)"
    return f"{table(head, rows)}\n\n{small}\n\n{said}\n\n{picture}"


SERVICE_WORDS = {
    "capacity": "16 under way",
    "low": "a tenth of the capacity",
    "at": "the capacity",
    "above": "twice the capacity",
}
"""What phases of the service's record are called in a document."""
