"""Compare ratios of a measurement with those recorded for CPUs of the same kind, to see what a change did to speed.

    python benchmarks/regression/speed_ratios.py compare out/speed
    python benchmarks/regression/speed_ratios.py record out/speed

Both read the JSON reports that `make bench` wrote. Milliseconds depend on the machine and its neighbours; ratios of
medians from the same rounds hardly do, so only those are kept: the chain to every other way to run the tower, to its
GEMMs alone, and each exit to full depth. A ratio has moved when its interval and the recorded one do not touch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from lraee_benchmarks.results.conditions import Device
from lraee_benchmarks.results.model import Report, from_json

FOLDER = Path(__file__).parent

Ratios = dict[str, dict[str, float]]
"""Value, low and high by name."""


EXIT_MARGIN = 1.5
"""An exit's share of full depth comes without an interval; it has moved when it changed by more than this factor."""


def cpu_class(device: Device) -> str:
    """CPUs whose ratios may be compared: architecture, what it does with 8 bits, cores.

    The make is not part of it: the same features on the same number of cores behave alike, and clouds do not say more.
    """
    features = "-".join(sorted(feature.lower() for feature in device.int8_features)) or "plain"
    return f"{device.machine}-{features}-{device.cores}cores"


def ratios_of(report: Report) -> Ratios:
    """Collect every ratio of one report, by a name with its threads and batch."""
    settings = report.settings
    where = f"{report.bundle.model}, {settings.threads} threads, batch {settings.batch}"
    found = {f"chain / {row.name}": row.chain_ratio for row in report.rows if row.kind != "full"}
    if report.floor is not None:
        found["chain / bare products"] = report.floor.chain_to_gemm
    ratios = {
        f"{where}: {name}": {"value": ratio.value, "low": ratio.interval.low, "high": ratio.interval.high}
        for name, ratio in found.items()
    }
    for part in report.parts:
        if part.part.startswith("exit"):
            value = part.share_of_full
            low, high = value / EXIT_MARGIN**0.5, value * EXIT_MARGIN**0.5
            ratios[f"{where}: {part.part} / full depth"] = {"value": value, "low": low, "high": high}
    return ratios


def reports_in(folder: Path) -> list[Report]:
    """Read every report of a folder, by name."""
    return [from_json(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]


def moved(old: Ratios, new: Ratios) -> Iterator[str]:
    """A line for each ratio: what it was, what it is, and whether it moved.

    >>> list(moved({"a": {"value": 1, "low": 0.9, "high": 1.1}}, {"a": {"value": 2, "low": 1.8, "high": 2.2}}))
    ['SLOWER  a: 2.000 [1.800, 2.200], recorded 1.000 [0.900, 1.100]']
    """
    for name, now in new.items():
        shown = f"{name}: {_shown(now)}"
        if name not in old:
            yield f"new     {shown}"
            continue
        then = old[name]
        word = "SLOWER" if now["low"] > then["high"] else "faster" if now["high"] < then["low"] else "same"
        yield f"{word:7} {shown}, recorded {_shown(then)}"
    yield from (f"gone    {name}: recorded {_shown(old[name])}" for name in old if name not in new)


def _shown(ratio: dict[str, float]) -> str:
    return f"{ratio['value']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}]"


def main() -> int:
    """Run the command; the status is 1 when something became slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("compare", "record"))
    parser.add_argument("folder", type=Path, help="with reports of lraee-bench --json")
    arguments = parser.parse_args()
    reports = reports_in(arguments.folder)
    if not reports:
        parser.error(f"{arguments.folder} has no report; run make bench first")
    ratios = {name: ratio for report in reports for name, ratio in ratios_of(report).items()}
    kind = cpu_class(reports[0].device)
    path = FOLDER / f"{kind}.json"
    if arguments.what == "record":
        commands = [report.settings.command for report in reports]
        record = {"cpu": kind, "model": reports[0].device.model, "commands": commands, "ratios": ratios}
        path.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        print(f"recorded {len(ratios)} ratios for {kind}")
        return 0
    old: Ratios = json.loads(path.read_text("utf-8"))["ratios"] if path.is_file() else {}
    if not old:
        command = f"python benchmarks/regression/speed_ratios.py record {arguments.folder}"
        print(f"nothing is recorded for {kind}; keep these with: {command}")
    lines = list(moved(old, ratios))
    print("\n".join(lines))
    return 1 if any(line.startswith("SLOWER") for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
