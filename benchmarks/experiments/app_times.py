"""Measure every way to run a bundle in an app, on the same images in turns: Python, one file, Node and WebAssembly.

    python benchmarks/experiments/app_times.py BUNDLE PACKAGE --images SOURCE [--count 200] [--point NAME] [--json F]

PACKAGE is a folder with runtime/js and its node_modules (``npm ci --ignore-scripts``). ``--node`` names the program.
Each image goes through all ways within the same second, at an operating point and at full depth, alone and on one
thread, twice in a row; the second time counts. What is timed is the model: pixels are resized before. WebAssembly runs
in Node here; ``browser.py`` measures a page in a browser. The one file runs with ONNX Runtime's exact kernel where this
CPU needs it.

Time saved compares the sums over all images: an image that leaves early is much faster than the median says.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import lraee
from experiments.javascript import Node
from experiments.one_file import session_of
from lraee.bundle.folder import find_bundle
from lraee.cli import errors_as_one_line
from lraee.ort.cpu import int8_products_saturate
from lraee.policies import Policy
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import device_line
from lraee_calibration_data import load_pixels, open_dataset

WARM_UP = 5
"""Images that do not count."""

Answer: TypeAlias = tuple[float, int, int]
"""Milliseconds, position of the label, block after which the image left."""

Way: TypeAlias = Callable[[int], Answer]
"""Runs the image at a position."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What every way to run is asked."""

    bundle: Path
    point: str
    """Operating point; full depth is run beside it."""
    pixels: NDArray[np.uint8]
    """(images, size, size, 3)."""
    node: str
    package: Path


def in_python(model: lraee.Model, pixels: NDArray[np.uint8], policy: Policy) -> Way:
    """Give the runtime of this project."""

    def run(at: int) -> Answer:
        begun = time.perf_counter()
        found = model.run_pixels(pixels[at : at + 1], policy=policy)
        took = 1000 * (time.perf_counter() - begun)
        return took, int(found.probabilities.argmax()), int(found.exit_block[0])

    return run


def in_one_file(session: ort.InferenceSession, pixels: NDArray[np.uint8]) -> Way:
    """Give a session with the whole bundle at one operating point."""

    def run(at: int) -> Answer:
        begun = time.perf_counter()
        _, probabilities, block, _ = session.run(None, {"pixels": pixels[at : at + 1]})
        return 1000 * (time.perf_counter() - begun), int(probabilities.argmax()), int(block[0])

    return run


def in_node(node: Node, point: str | None) -> Way:
    """Give a process of Node that holds the pixels already; None is full depth."""

    def run(at: int) -> Answer:
        took, label, block = node.ask("image", str(at), *([] if point is None else [point]))
        return float(took), int(label), int(block)

    return run


def ways_to_run(asked: Question, folder: Path, kept: contextlib.ExitStack) -> dict[tuple[str, bool], Way]:
    """Open every way to run, at the operating point and, with True, at full depth."""
    model = lraee.load(asked.bundle, threads=1)
    model.warm()
    made: dict[tuple[str, bool], Way] = {
        ("Python", False): in_python(model, asked.pixels, lraee.Adaptive(asked.point)),
        ("Python", True): in_python(model, asked.pixels, lraee.Full()),
    }
    exact = model.manifest.saturates and int8_products_saturate()
    for at_full_depth, point in ((False, asked.point), (True, "full")):
        path = folder / f"{point}.onnx"
        words = [sys.executable, "-m", "lraee_exporters.single_file", str(asked.bundle), "-o", str(path)]
        subprocess.run([*words, "--point", point], check=True, capture_output=True)
        made["one file", at_full_depth] = in_one_file(session_of(path, exact=exact), asked.pixels)
    (folder / "pixels").write_bytes(asked.pixels.tobytes())
    for name, runtime in (("Node", "node"), ("WebAssembly", "web")):
        node = kept.enter_context(Node(asked.node, asked.bundle, asked.package, 1, runtime))
        node.ask("pixels", str(folder / "pixels"))
        for at_full_depth, named in ((False, asked.point), (True, None)):
            made[name, at_full_depth] = in_node(node, named)
    return made


def measured(asked: Question) -> dict[str, Any]:
    """Run every image through every way in turns; gives milliseconds and answers of the images that count."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as kept:
        ways = ways_to_run(asked, Path(folder), kept)
        answers: dict[tuple[str, bool], list[Answer]] = {way: [] for way in ways}
        order = list(ways)
        for at in range(len(asked.pixels)):
            for way in (*order[at % len(order) :], *order[: at % len(order)]):
                ways[way](at)  # what ran before it has emptied the caches, which a program of its own would not meet
                answers[way].append(ways[way](at))
    return {
        f"{name}, {'full' if at_full_depth else asked.point}": [list(one) for one in found[WARM_UP:]]
        for (name, at_full_depth), found in answers.items()
    }


def table(found: dict[str, Any], point: str) -> Table:
    """Write a row for each way to run."""
    rows = []
    names = dict.fromkeys(key.rsplit(", ", 1)[0] for key in found)
    for name in names:
        early, full = (np.array(found[f"{name}, {at}"]) for at in (point, "full"))
        ours = np.array(found[f"Python, {point}"])
        ratio = np.median(full[:, 0] / np.array(found["Python, full"])[:, 0])
        rows.append(
            [
                name,
                f"{np.median(full[:, 0]):.2f}",
                f"{ratio:.2f}",
                f"{early[:, 0].mean():.2f}",
                f"{100 * (1 - early[:, 0].sum() / full[:, 0].sum()):.1f} %",
                f"{int((early[:, 1:] == ours[:, 1:]).all(axis=1).sum())} of {len(ours)}",
            ]
        )
    head = ["way to run", "full depth, ms", "to Python", f"`{point}`, mean ms", "time saved", "answers as Python's"]
    return Table(header=head, rows=rows)


def flops_saved(model: lraee.Model, pixels: NDArray[np.uint8], point: str) -> float:
    """Share of the FLOPs of full depth that these images save at an operating point, 0 to 1, heads counted."""
    flops = model.flops_of_run(model.run_pixels(pixels, policy=lraee.Adaptive(point)))
    return 1 - float(flops.mean()) / model.manifest.full_flops


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("package", type=Path)
    parser.add_argument("--images", type=Path, required=True, help="folder or archive of images")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--point", help="operating point; by default the bundle's")
    parser.add_argument("--node", default=shutil.which("node"), help="the program; by default the one on the path")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if given.node is None:
        raise SystemExit("Node is not on the path; install it, or name it with --node")
    with errors_as_one_line():
        bundle = find_bundle(given.bundle)
        model = lraee.load(bundle, threads=1)
        point = given.point or model.manifest.default_point
        if point is None:
            raise SystemExit(f"{given.bundle} has no operating point; give a bundle with exits")
        dataset = open_dataset(given.images)
        chosen = np.random.default_rng(0).permutation(len(dataset.samples))[: given.count + WARM_UP]
        pixels = load_pixels(dataset, model.manifest.preprocessing, chosen.tolist()).pixels
        asked = Question(bundle=bundle, point=point, pixels=pixels, node=given.node, package=given.package)
        device, saved = describe_device(), flops_saved(model, pixels[WARM_UP:], point)
        found = measured(asked)
    print(f"{device_line(device)}, 1 thread; {len(pixels) - WARM_UP} images, FLOPs saved {100 * saved:.1f} %")
    print(table(found, point).to_markdown())
    if given.json is not None:
        record = {"device": device_line(device), "bundle": bundle.name, "flops_saved": saved, "answers": found}
        given.json.write_text(json.dumps(record) + "\n", "utf-8")


if __name__ == "__main__":
    main()
