"""The table of README.md: which versions ran, and what did not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lraee_benchmarks.render.table import Table

STAGE_NAMES = {"base": "shipped bundle", "image": "image files", "export": "export of the reference"}


def outcome_rows(record: Mapping[str, Any]) -> list[str]:
    """The lines of the table, and a line for each thing that is missing, raised or failed."""
    runs: Mapping[str, Any] = record["runs"]
    header = ["", "claimed", *(f"{name.replace(' ', ', ')}" for name in runs)]
    rows = []
    for stage, bounds in record["claims"].items():
        for name, bound in bounds.items():
            if stage == "export" and any(name in record["claims"][other] for other in ("base", "image")):
                continue
            cells = [cell(run, stage, name) for run in runs.values()]
            rows.append([f"`{name}`", f">={bound}", *cells])
    for stage, words in STAGE_NAMES.items():
        cells = ["failed" if stage in run["failed"] else "passed" for run in runs.values()]
        rows.append([words, "", *cells])
    table = Table(header=header, rows=rows, words=range(len(header))).to_markdown()
    return [table, "", *remarks(record)]


def cell(run: Mapping[str, Any], stage: str, name: str) -> str:
    """Give the version that ran, and that of the export where pip took another there."""
    version = run["versions"].get(stage, {}).get(name, "not installed")
    with_export = run["versions"].get("export", {}).get(name, version)
    mark = " *" if name in run["raised"] else ""
    return version + mark if with_export == version else f"{version}{mark}, export {with_export}"


def remarks(record: Mapping[str, Any]) -> Iterator[str]:
    """What the table cannot say, one list item each."""
    pythons = [f"{name.partition(' ')[0]} was {run['python']}" for name, run in record["runs"].items()]
    yield f"- Python {', '.join(dict.fromkeys(pythons))}."
    for minor in record["missing"]:
        yield f"- Python {minor}: not run, no interpreter was there."
    raised = [(name, *why) for name, run in record["runs"].items() for why in run["raised"].items()]
    for reason in dict.fromkeys((name.partition(" ")[0], package, why) for name, package, why in raised):
        yield f"- \\* Python {reason[0]}, `{reason[1]}`: {reason[2]}."
    for name, run in record["runs"].items():
        for stage, why in run["failed"].items():
            yield f"- {name}, {STAGE_NAMES[stage]}: {why}"
