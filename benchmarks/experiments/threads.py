"""Measure what threads cost and save, alone and next to a busy process: the defaults rest on it.

    python benchmarks/experiments/threads.py BUNDLE... [--threads 1,2] [--seconds 60] [--batch 1]
        [--neighbours 1] [--json F]

Every row is a number of threads and how they wait for work: asleep, as `lraee.load` has them, or spinning, as ONNX
Runtime's own default has it. All rows run the same pixels at full depth, in turns within the same seconds, each turn
once with the neighbours stopped and once with them running. A neighbour is a process that computes without end and may
run on any core. Leave the machine alone otherwise: the load average of the minute before is printed first.

CPU time is that of this process and an image: what spinning takes from others, and from a battery.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

import lraee
from lraee.bundle.folder import Bundle, find_bundle
from lraee.images.read import Pixels
from lraee.model import Model
from lraee.ort.sessions import SessionSettings
from lraee.ort.threads import usable_cores
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import device_line

TURN_SECONDS = 0.25
"""Of one row in a turn: many of the scheduler's time slices."""


@dataclass(slots=True)
class Times:
    """What one row took in one surrounding."""

    wall_ms: list[float] = field(default_factory=list)
    """Of each call."""
    cpu_ms: float = 0.0
    """Of all calls together."""

    def summary(self) -> dict[str, float]:
        """Milliseconds of a call: median, mean, 95th percentile, and CPU time."""
        wall = np.array(self.wall_ms)
        return {
            "p50": float(np.median(wall)),
            "mean": float(wall.mean()),
            "p95": float(np.percentile(wall, 95)),
            "cpu": self.cpu_ms / len(wall),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A way to run a bundle, and what it took."""

    threads: int
    spinning: bool
    is_default: bool
    """Whether `lraee.load` runs the bundle so."""
    alone: Times = field(default_factory=Times)
    beside: Times = field(default_factory=Times)
    """While the neighbours run."""


@contextmanager
def neighbours(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Busy processes, stopped at first; they end with the block."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        tell(busy, signal.SIGSTOP)
        yield busy
    finally:
        for process in busy:
            process.kill()
            process.wait()


def tell(busy: Sequence[subprocess.Popen[bytes]], what: signal.Signals) -> None:
    """Stop the neighbours or let them run."""
    for process in busy:
        process.send_signal(what)


def measure(folder: Path, counts: Sequence[int], *, batch: int, seconds: float, busy: int) -> list[Row]:
    """Time every row of a bundle.

    Args:
        folder: of the bundle.
        counts: of threads.
        batch: images of a call.
        seconds: for all rows together; each has a turn at least.
        busy: neighbours.
    """
    bundle = Bundle(folder)
    default = lraee.load(folder).threads
    ways = [(threads, spinning) for threads in counts for spinning in ((False, True) if threads > 1 else (False,))]
    rows = [
        Row(threads=threads, spinning=spinning, is_default=threads == default and not spinning)
        for threads, spinning in ways
    ]
    models = [Model(bundle, SessionSettings(threads=threads, spinning=spinning)) for threads, spinning in ways]
    size = bundle.manifest.preprocessing.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
    for model in models:
        model.warm()
    end, turn = time.perf_counter() + seconds, 0
    with neighbours(busy) as processes:
        while not turn or time.perf_counter() < end:
            for is_beside in (False, True):
                tell(processes, signal.SIGCONT if is_beside else signal.SIGSTOP)
                for number in range(len(rows)):
                    place = (number + turn) % len(rows)
                    run_turn(models[place], pixels, rows[place].beside if is_beside else rows[place].alone)
            turn += 1
    return rows


def run_turn(model: Model, pixels: Pixels, times: Times) -> None:
    """Run for `TURN_SECONDS`, after one call that brings weights and threads back."""
    full = lraee.Full()
    model.run_pixels(pixels, policy=full)
    start, cpu = time.perf_counter(), time.process_time()
    before = start
    while before - start < TURN_SECONDS:
        model.run_pixels(pixels, policy=full)
        now = time.perf_counter()
        times.wall_ms.append((now - before) * 1e3)
        before = now
    times.cpu_ms += (time.process_time() - cpu) * 1e3


def table(rows: Sequence[Row], busy: int) -> str:
    """Render Markdown, in milliseconds a call."""
    beside = "neighbour" if busy == 1 else f"{busy} neighbours"
    heads = ["threads", "they", *(f"alone, {name}" for name in ("p50", "mean", "p95", "CPU"))]
    heads += [f"{beside}, {name}" for name in ("p50", "mean", "p95", "CPU")]
    lines = []
    for row in rows:
        default = " (default)" if row.is_default else ""
        cells = [f"{value:.2f}" for times in (row.alone, row.beside) for value in times.summary().values()]
        lines.append([f"{row.threads}{default}", "spin" if row.spinning else "sleep", *cells])
    return Table(header=heads, rows=lines, words=(1,)).to_markdown()


def main() -> None:
    """Measure, print, and write JSON if asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", metavar="BUNDLE")
    parser.add_argument("--threads", help="numbers with commas; by default 1, all cores but one, and all")
    parser.add_argument("--seconds", type=float, default=60, help="for each bundle")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--neighbours", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    cores = usable_cores()
    asked = map(int, given.threads.split(",")) if given.threads else (1, cores - 1, cores)
    counts = sorted({count for count in asked if count >= 1})
    device = describe_device()
    load = "unknown" if device.load_average is None else f"{device.load_average:.2f}"
    print(f"{device_line(device)}\nload average before: {load}; batch {given.batch}; milliseconds a call")
    found = {}
    for name in given.bundles:
        folder = find_bundle(name)
        rows = measure(folder, counts, batch=given.batch, seconds=given.seconds, busy=given.neighbours)
        calls = min(len(times.wall_ms) for row in rows for times in (row.alone, row.beside))
        print(f"\n{folder.name}, at least {calls} calls a cell\n\n{table(rows, given.neighbours)}")
        keys = ("threads", "spinning", "is_default")
        found[folder.name] = [
            {key: getattr(row, key) for key in keys}
            | {"alone_ms": row.alone.summary(), "beside_ms": row.beside.summary()}
            for row in rows
        ]
    if given.json is not None:
        record = {"device": asdict(device), "batch": given.batch, "neighbours": given.neighbours, "bundles": found}
        given.json.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
