"""Compare bundles, run by the runtime, with the one file that is made of each, run with default session options.

    python benchmarks/experiments/one_file.py usual.lraee exact.lraee --images fashion-mnist [--count 1000] [--json F]

Each image goes through both, one after the other, at each of the points. Where products of a bundle saturate on this
CPU, the file runs once with default options and once with the exact kernel.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import lraee
from lraee.bundle.folder import Bundle, find_bundle
from lraee.cli import errors_as_one_line
from lraee.ort.cpu import int8_products_saturate
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.images import default_source, open_source
from lraee_benchmarks.render.table import Table
from lraee_calibration_data import label_rows, load_pixels

FULL = "full"
EXACT = "session.x64quantprecision"


def session_of(path: Path, *, exact: bool) -> ort.InferenceSession:
    """Open a file on one thread, otherwise with default options."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if exact:
        options.add_session_config_entry(EXACT, "1")
    return ort.InferenceSession(path, options)


def compare(
    model: lraee.Model, path: Path, policy: Any, pixels: NDArray[np.uint8], classes: NDArray[np.int64], *, exact: bool
) -> dict[str, Any]:
    """Run all images through both, interleaved."""
    session = session_of(path, exact=exact)
    same, right, cosines = [], [], []
    seconds: list[tuple[float, float]] = []
    for at in range(len(pixels)):
        image = pixels[at : at + 1]
        began = time.perf_counter()
        wanted = model.run_pixels(image, policy=policy)
        between = time.perf_counter()
        embedding, probabilities, block, _ = session.run(None, {"pixels": image})
        seconds.append((between - began, time.perf_counter() - between))
        alike = block[0] == wanted.exit_block[0]
        same.append(alike and probabilities.argmax() == wanted.probabilities.argmax())
        right.append((wanted.probabilities.argmax() == classes[at], probabilities.argmax() == classes[at]))
        if alike:
            cosines.append(float((embedding * wanted.embedding).sum()))
    medians = 1000 * np.median(seconds, axis=0)
    accuracy = 100 * np.mean(right, axis=0)
    return {
        "images": len(pixels),
        "differ": len(pixels) - sum(map(bool, same)),
        "least_cosine": min(cosines),
        "accuracy": [round(float(one), 2) for one in accuracy],
        "ms": [round(float(one), 2) for one in medians],
    }


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+")
    parser.add_argument("--images", help="labelled folder or zip; by default the shipped test images")
    parser.add_argument("--count", type=int, help="images, evenly spaced; all by default")
    parser.add_argument("--points", nargs="+", default=["balanced", FULL])
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    device, rows = describe_device(), []
    for name in options.bundles:
        with errors_as_one_line(), tempfile.TemporaryDirectory() as folder:
            bundle, model = Bundle(find_bundle(name)), lraee.load(name, threads=1)
            dataset = open_source(options.images or default_source(model.manifest.model))
            if options.count is not None:
                chosen = np.linspace(0, len(dataset) - 1, options.count).astype(int)
                dataset = dataset.subset([int(index) for index in chosen])
            classes = label_rows(dataset, model.labels)
            pixels = load_pixels(dataset, model.manifest.preprocessing).pixels
            for point in options.points:
                path = Path(folder) / f"{point}.onnx"
                command = [sys.executable, "-m", "lraee_exporters.single_file", str(bundle.folder), "-o", str(path)]
                subprocess.run([*command, "--point", point], check=True, capture_output=True)
                policy = lraee.Full() if point == FULL else lraee.Adaptive(point)
                for exact in (False, True) if bundle.manifest.saturates and int8_products_saturate() else (False,):
                    found = compare(model, path, policy, pixels, classes, exact=exact)
                    rows.append({"bundle": Path(name).stem, "point": point, "exact": exact, **found})
    machine = f"{device.model}, {', '.join(device.int8_features) or 'no VNNI'}, ONNX Runtime {device.onnxruntime}"
    print(f"{machine}, 1 thread\n")
    header = (
        "bundle",
        "point",
        "options",
        "images",
        "differ",
        "least cosine",
        "top-1",
        "file",
        "runtime, ms",
        "file, ms",
    )
    cells = [
        [
            row["bundle"],
            row["point"],
            EXACT if row["exact"] else "default",
            str(row["images"]),
            str(row["differ"]),
            f"{row['least_cosine']:.4f}",
            *(f"{one:.2f} %" for one in row["accuracy"]),
            *(f"{one:.2f}" for one in row["ms"]),
        ]
        for row in rows
    ]
    print(Table(header=header, rows=cells).to_markdown())
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}) + "\n", "utf-8")


if __name__ == "__main__":
    main()
