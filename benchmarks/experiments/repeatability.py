"""Check whether two runs of lraee-bench agree within the intervals that they state.

    python benchmarks/experiments/repeatability.py BUNDLE [--pairs 10] [--json F] [--keep FOLDER]
        [-- OPTIONS OF lraee-bench]

Runs the command twice for each pair, in fresh processes; a run that calls itself unstable is repeated, as its report
says. Counts for every row the pairs whose intervals overlap (of the median latency, of the latency saved, and of the
ratio of the full chain to the row), then the pairs in which all of them do, and the share of the second runs' numbers
that lie in the first run's interval, which is to be 95 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from lraee_benchmarks.render.html import read_result
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import device_line
from lraee_benchmarks.results.model import Interval, Report, Row

_BENCH = "from lraee_benchmarks.cli import main; main()"

STATED = ("p50", "latency saved", "chain / row")


def intervals(row: Row) -> dict[str, Interval]:
    """What a row states, by the names of `STATED`."""
    found = (row.latency.p50_interval_ms, row.latency_saved_interval, row.chain_ratio.interval)
    return dict(zip(STATED, found, strict=True))


def stated(row: Row) -> dict[str, float]:
    """The numbers themselves, by the same names."""
    return dict(zip(STATED, (row.latency.p50_ms, row.latency_saved, row.chain_ratio.value), strict=True))


def overlap(a: Interval, b: Interval) -> bool:
    """Whether some value lies in both.

    >>> overlap(Interval(low=1, high=2), Interval(low=2, high=3))
    True
    """
    return a.low <= b.high and b.low <= a.high


def agreements(first: Report, second: Report) -> dict[tuple[str, str], bool]:
    """For each row of both and each of `STATED`, whether the two agree."""
    both = [(one, other) for one in first.rows if (other := second.row(one.name)) is not None]
    return {
        (one.name, name): overlap(interval, intervals(other)[name])
        for one, other in both
        for name, interval in intervals(one).items()
    }


def count(pairs: list[tuple[Report, Report]]) -> dict[str, dict[str, int]]:
    """For each row and each of `STATED`, the pairs that agree."""
    found = [agreements(first, second) for first, second in pairs]
    return {
        row.name: {name: sum(agree[row.name, name] for agree in found) for name in STATED} for row in pairs[0][0].rows
    }


def count_whole(pairs: list[tuple[Report, Report]]) -> int:
    """Pairs that agree in everything that they state."""
    return sum(all(agreements(first, second).values()) for first, second in pairs)


def share_predicted(pairs: list[tuple[Report, Report]]) -> float:
    """Of all numbers of the second runs, those that lie in the interval of the first."""
    held = [
        interval.low <= stated(other)[name] <= interval.high
        for first, second in pairs
        for row in first.rows
        if (other := second.row(row.name)) is not None
        for name, interval in intervals(row).items()
    ]
    return sum(held) / len(held)


def main() -> None:
    """Run the pairs, count agreements and print them."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog="Options of lraee-bench follow after --."
    )
    parser.add_argument("bundle")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", type=Path, help="folder for the runs' own results")
    given = sys.argv[1:]
    own = given.index("--") if "--" in given else len(given)
    options, bench = parser.parse_args(given[:own]), given[own + 1 :]
    reports: list[Report] = []
    unstable = 0
    command = [sys.executable, "-c", _BENCH, options.bundle, "--cold-starts", "0", *bench]
    with tempfile.TemporaryDirectory() as temporary:
        folder: Path = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        while len(reports) < 2 * options.pairs:
            path = folder / f"{len(reports) + unstable}.json"
            subprocess.run([*command, "--json", str(path)], check=True, stdout=subprocess.DEVNULL)
            report = read_result(path)
            if report.stability.stable:
                reports.append(report)
            elif (unstable := unstable + 1) > 2 * options.pairs:
                sys.exit("more runs were unstable than wanted; leave the machine alone")
    pairs = list(zip(reports[::2], reports[1::2], strict=True))
    agreeing = count(pairs)
    print(
        f"{device_line(reports[0].device)}\n{reports[0].settings.command}\n"
        f"{len(reports)} runs and {unstable} that called themselves unstable\n"
    )
    rows = [[name, *(str(counts[number]) for number in STATED)] for name, counts in agreeing.items()]
    print(Table(header=(f"pairs of {len(pairs)} that agree", *STATED), rows=rows).to_markdown())
    whole = count_whole(pairs)
    predicted = share_predicted(pairs)
    print(
        f"\n{whole} pairs agree in everything; {predicted:.0%} of the second runs' numbers lie in the first's interval."
    )
    if options.json is not None:
        recorded = {
            "command": reports[0].settings.command,
            "pairs": len(pairs),
            "unstable": unstable,
            "agreeing": agreeing,
            "whole": whole,
            "predicted": predicted,
        }
        options.json.write_text(json.dumps(recorded, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
