"""Measure the JavaScript runtime in Node beside Python's: the same bundle, pixels, threads and ONNX Runtime.

    python benchmarks/experiments/javascript.py BUNDLE PACKAGE [--threads 1] [--rounds 60] [--calls 3]
        [--node PROGRAM] [--json F]

PACKAGE is a folder with runtime/js and its node_modules (``npm ci --ignore-scripts``). All rows run at full depth, in
turns within the same seconds; the first call of a turn does not count. The rows in Node differ by how memory is
allocated, since JavaScript cannot share an arena among sessions as Python's runtime does:

- chain: the runtime as it is, without arenas;
- arenas: the same blocks, an arena of its own for each session, ONNX Runtime's default;
- graph: the tower as one graph, with ONNX Runtime's default arena.

Python's rows are its chain, with the shared arena, and the one graph. Ratios are those of medians.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnxruntime as ort

import lraee
from lraee.bundle.folder import find_bundle
from lraee.ort.sessions import SessionSettings, make_session
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import device_line

WORKER = Path(__file__).with_name("javascript_worker.mjs")

NODE_ROWS = ("node chain", "node arenas", "node graph")


class Node:
    """A process of Node that runs what it is told, one line at a time."""

    def __init__(self, node: str, bundle: Path, package: Path, threads: int) -> None:
        words = [node, str(WORKER), str(bundle), str(package.resolve()), str(threads)]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.versions: dict[str, str] = self.ask("versions")

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def ask(self, *words: str) -> Any:
        """Give one order and read its answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit("Node ended; its message stands above")
        return json.loads(answer)


def python_rows(bundle: Path, threads: int) -> dict[str, Callable[[], object]]:
    """Give Python's chain and graph as functions without arguments."""
    model = lraee.load(bundle, threads=threads, policy=lraee.Full())
    model.warm()
    size = model.manifest.preprocessing.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), np.uint8)
    graph = make_session(bundle / model.manifest.part("graph").graph, SessionSettings(threads=threads))
    labels = {
        "label_matrix": model.parts.labels.matrix,
        "logit_scale": np.array(model.manifest.logit_scale, np.float32),
    }
    return {
        "python chain": lambda: model.run_pixels(pixels),
        "python graph": lambda: graph.run(None, {"pixels": pixels, **labels}),
    }


def timed(run: Callable[[], object], calls: int) -> list[float]:
    """Milliseconds of some calls, after one that does not count."""
    run()
    found = []
    for _ in range(calls):
        begun = time.perf_counter()
        run()
        found.append((time.perf_counter() - begun) * 1000)
    return found


def measured(node: Node, bundle: Path, *, threads: int, rounds: int, calls: int) -> dict[str, Any]:
    """Run all rows in turns.

    Returns:
        Versions, and the milliseconds of each row's calls.
    """
    ours = python_rows(bundle, threads)
    times: dict[str, list[float]] = {row: [] for row in (*ours, *NODE_ROWS)}
    for _ in range(rounds):
        for row, run in ours.items():
            times[row] += timed(run, calls)
        for row in NODE_ROWS:
            times[row] += node.ask(row.removeprefix("node "), str(calls))
    return {"versions": {"python": ort.__version__, **node.versions}, "times_ms": times}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("package", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--node", help="the program; by default the one on the path")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    bundle = find_bundle(given.bundle)
    program = given.node or shutil.which("node")
    if program is None:
        parser.error("Node is not on the path; install it, or name it with --node")
    with Node(program, bundle, given.package, given.threads) as node:
        found = measured(node, bundle, threads=given.threads, rounds=given.rounds, calls=given.calls)
    versions = found["versions"]
    print(device_line(describe_device()))
    print(f"ONNX Runtime {versions['python']} in Python, {versions['onnxruntime']} in Node {versions['node']}")
    if versions["python"] != versions["onnxruntime"]:
        print("the versions differ, so ratios between Python and Node are not of the runtimes alone", file=sys.stderr)
    medians = {row: float(np.median(times)) for row, times in found["times_ms"].items()}
    rows = []
    for row, times in found["times_ms"].items():
        ratios = (medians[row] / medians[other] for other in ("python chain", "node graph"))
        low = float(np.percentile(times, 10))
        rows.append([row, f"{medians[row]:.2f}", f"{low:.2f}", *(f"{ratio:.3f}" for ratio in ratios)])
    header = ["row", "ms, median", "10 % of calls below", "to python chain", "to node graph"]
    print(Table(header=header, rows=rows).to_markdown())
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
