"""Measure the JavaScript runtime beside Python's on one bundle: what it takes, and whether it answers the same.

    python benchmarks/experiments/javascript.py times BUNDLE PACKAGE [--threads 1] [--rounds 60] [--calls 3] [--json F]
    python benchmarks/experiments/javascript.py answers BUNDLE PACKAGE --images SOURCE [--count 1000] [--web]

PACKAGE is a folder with runtime/js and its node_modules (``npm ci --ignore-scripts``). ``--node`` names the program.

``times`` runs all rows at full depth, in turns within the same seconds; the first call of a turn does not count. Rows
of Python are its chain of blocks, with the arena that its sessions share, and the tower as one graph. Rows of Node
differ by how memory is allocated, since JavaScript cannot share an arena among sessions:

- chain: the runtime as it is, without arenas;
- arenas: the same blocks, an arena of its own for each session, ONNX Runtime's default;
- graph: the tower as one graph, with ONNX Runtime's default arena.

Ratios are those of medians, by the clock and of CPU time; on a busy machine the second says more.

``answers`` gives both runtimes the decoded pixels of the same images, which they resize, and lets them leave at the
bundle's default operating point. An answer is the same where label and block are; of the others it is told how near a
gate of the operating point lies to its threshold. ``--web`` takes onnxruntime-web, WebAssembly.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnxruntime as ort

import lraee
from lraee.bundle.folder import find_bundle
from lraee.images.read import Pixels
from lraee.ort.sessions import SessionSettings, make_session
from lraee.prediction import Prediction
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import device_line
from lraee_calibration_data import open_dataset

WORKER = Path(__file__).with_name("javascript_worker.mjs")

NODE_ROWS = ("node chain", "node arenas", "node graph")


class Node:
    """A process of Node that runs what it is told, one line at a time."""

    def __init__(self, node: str, bundle: Path, package: Path, threads: int, runtime: str = "node") -> None:
        words = [node, str(WORKER), str(bundle), str(package.resolve()), str(threads), runtime]
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


def timed(run: Callable[[], object], calls: int) -> list[list[float]]:
    """Milliseconds of some calls, after one that does not count: each by the clock, and of this process's CPU."""
    run()
    found = []
    for _ in range(calls):
        begun, used = time.perf_counter(), time.process_time()
        run()
        found.append([(time.perf_counter() - begun) * 1000, (time.process_time() - used) * 1000])
    return found


def measured(node: Node, bundle: Path, *, threads: int, rounds: int, calls: int) -> dict[str, Any]:
    """Run all rows in turns.

    Returns:
        Versions, and for each row the milliseconds of its calls, by the clock and of CPU.
    """
    ours = python_rows(bundle, threads)
    times: dict[str, list[list[float]]] = {row: [] for row in (*ours, *NODE_ROWS)}
    for _ in range(rounds):
        for row, run in ours.items():
            times[row] += timed(run, calls)
        for row in NODE_ROWS:
            times[row] += node.ask(row.removeprefix("node "), str(calls))
    return {"versions": {"python": ort.__version__, **node.versions}, "times_ms": times}


def written(images: Sequence[Pixels], folder: Path) -> Path:
    """Write images for Node: their bytes, one after the other, and their sizes."""
    (folder / "pixels").write_bytes(b"".join(image.tobytes() for image in images))
    request = {"path": str(folder / "pixels"), "sizes": [image.shape[:2] for image in images]}
    (folder / "request.json").write_text(json.dumps(request), "utf-8")
    return folder / "request.json"


def distance(model: lraee.Model, image: Pixels) -> float:
    """How near any gate of the default operating point lies to its threshold; infinite without thresholds."""
    name = model.manifest.default_point
    point = next((point for point in model.manifest.operating_points if point.name == name), None)
    found = [
        abs(gate - one.value)
        for one in (point.thresholds if point is not None else ())
        if (gate := model.classify(image, policy=lraee.ExitAt(one.block, point.schedule)).gate) is not None
    ]
    return min(found, default=float("inf"))


def compared(
    model: lraee.Model, images: Sequence[Pixels], ours: Sequence[Prediction], theirs: Sequence[dict[str, Any]]
) -> tuple[int, list[str], float]:
    """Count the same answers, describe the others, and find the least cosine where blocks agree."""
    same, others, cosines = 0, [], []
    for place, (image, own, met) in enumerate(zip(images, ours, theirs, strict=True)):
        if met["exitBlock"] == own.exit_block:
            cosines.append(float(np.dot(met["embedding"], own.embedding)))
        if (met["exitBlock"], met["index"]) == (own.exit_block, own.index):
            same += 1
            continue
        others.append(
            f"image {place}: block {met['exitBlock']} and {model.labels[met['index']]}, in Python {own.exit_block} and "
            f"{own.label}; a gate is {distance(model, image):.4f} from its threshold"
        )
    return same, others, min(cosines, default=1.0)


def print_times(node: Node, bundle: Path, given: argparse.Namespace) -> None:
    """Measure all rows and print a table."""
    found = measured(node, bundle, threads=given.threads, rounds=given.rounds, calls=given.calls)
    if ort.__version__ != node.versions["onnxruntime"]:
        print("the versions differ, so ratios between Python and Node are not of the runtimes alone", file=sys.stderr)
    medians = {row: np.median(np.array(times), axis=0) for row, times in found["times_ms"].items()}
    rows = []
    for row, (wall, cpu) in medians.items():
        ratios = [medians[row] / medians[other] for other in ("python chain", "node graph")]
        cells = (f"{number:.3f}" for ratio in ratios for number in ratio)
        rows.append([row, f"{wall:.2f}", f"{cpu:.2f}", *cells])
    header = ["row", "ms", "CPU ms", "to python chain", "CPU", "to node graph", "CPU"]
    print(Table(header=header, rows=rows).to_markdown())
    if given.json is not None:
        given.json.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


def print_answers(node: Node, bundle: Path, given: argparse.Namespace) -> None:
    """Compare answers and print how many are the same, and the others."""
    dataset = open_dataset(given.images)
    chosen = np.random.default_rng(0).permutation(len(dataset.samples))[: given.count]
    images = [dataset.read(int(index)) for index in chosen]
    model = lraee.load(bundle, threads=1)
    ours = [model.classify(image) for image in images]
    with tempfile.TemporaryDirectory() as folder:
        theirs = node.ask("answers", str(written(images, Path(folder))))
    same, others, least = compared(model, images, ours, theirs)
    print(f"{same} of {len(images)} the same, cosine at least {least:.6f} where blocks agree")
    print("\n".join(others))


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    below = made.add_subparsers(dest="what", required=True)
    times, answers = below.add_parser("times"), below.add_parser("answers")
    for one in (times, answers):
        one.add_argument("bundle")
        one.add_argument("package", type=Path)
        one.add_argument("--node", default=shutil.which("node"), help="the program; by default the one on the path")
        one.add_argument("--threads", type=int, default=1)
    times.add_argument("--rounds", type=int, default=60)
    times.add_argument("--calls", type=int, default=3)
    times.add_argument("--json", type=Path)
    answers.add_argument("--images", type=Path, required=True, help="folder or archive of labelled images")
    answers.add_argument("--count", type=int, default=1000)
    answers.add_argument("--web", action="store_true", help="WebAssembly instead of the library for Node")
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the first word says."""
    given = parser().parse_args(arguments)
    if given.node is None:
        raise SystemExit("Node is not on the path; install it, or name it with --node")
    bundle, runtime = find_bundle(given.bundle), "web" if getattr(given, "web", False) else "node"
    with Node(given.node, bundle, given.package, given.threads, runtime) as node:
        print(device_line(describe_device()))
        print(
            f"ONNX Runtime {ort.__version__} in Python, onnxruntime-{runtime} {node.versions['onnxruntime']}, "
            f"Node {node.versions['node']}"
        )
        (print_times if given.what == "times" else print_answers)(node, bundle, given)


if __name__ == "__main__":
    main()
