"""Run images through a bundle, on whatever CPU this is, and append what came out to a file, a line for each image.

    python run_images.py BUNDLE OUT.jsonl IMAGES

Needs the base packages and Pillow only, for it runs inside the emulated system. Images are taken evenly from the
shipped test half of Fashion-MNIST; those that the file has already are passed over, so an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

import lraee
from lraee.model import Model
from lraee.ort import sessions
from lraee.ort.cpu import cpu_flags
from lraee.policies import Policy
from lraee.policies.given_shares import EveryExit
from lraee_benchmarks.device.description import int8_features
from lraee_calibration_data import fashion_mnist_test, load_pixels, open_dataset

POLICIES: dict[str, Policy] = {"adaptive": lraee.Adaptive(), "full": lraee.Full()}


def evenly(total: int, count: int) -> list[int]:
    """So many of `total` positions, the same distance apart.

    >>> evenly(2000, 4)
    [0, 500, 1000, 1500]
    """
    return [index * total // count for index in range(min(count, total))]


def circumstances() -> dict[str, Any]:
    """Versions, and what the runtime believes of the CPU."""
    return {
        "machine": platform.machine(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": ort.__version__,
        "lraee": lraee.__version__,
        "int8_features": list(int8_features(cpu_flags())),
        "exact_kernel": sessions.int8_products_saturate(),
    }


def outcome(model: Model, pixels: NDArray[np.uint8], policy: Policy) -> dict[str, Any]:
    """What one image got, (1, size, size, 3)."""
    every_exit = EveryExit(policy)
    answers = model.run_pixels(pixels, policy=every_exit)
    return {
        "label": model.labels[int(answers.probabilities[0].argmax())],
        "score": float(answers.probabilities[0].max()),
        "exit_block": int(answers.exit_block[0]),
        "gates": {str(block): float(verdict.gate[0]) for block, verdict in every_exit.verdicts.items()},
        "embedding": answers.embedding[0].tolist(),
    }


def images_in(path: Path) -> set[str]:
    """Images that a file has, without a line that was cut off."""
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if whole != lines:
        path.write_text("".join(whole), "utf-8")
    return {line["image"] for line in map(json.loads, whole) if "image" in line}


def main() -> None:
    """Parse, run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("out", type=Path)
    parser.add_argument("images", type=int)
    parser.add_argument("--let-saturate", action="store_true", help="never ask for the exact kernel")
    arguments = parser.parse_args()
    if arguments.let_saturate:
        sessions.int8_products_saturate = lambda: False
    there = images_in(arguments.out)
    dataset = open_dataset(fashion_mnist_test())
    wanted = [index for index in evenly(len(dataset), arguments.images) if dataset.samples[index].key not in there]
    with arguments.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"circumstances": circumstances()}) + "\n")
        model = lraee.load(arguments.bundle, threads=1)
        has_gates = model.manifest.default_point is not None
        policies = {name: policy for name, policy in POLICIES.items() if has_gates or name == "full"}
        for index in wanted:
            pixels = load_pixels(dataset, model.manifest.preprocessing, [index]).pixels
            line: dict[str, Any] = {"image": dataset.samples[index].key, "truth": dataset.samples[index].label}
            line["pixels"] = hashlib.sha256(pixels.tobytes()).hexdigest()
            line |= {name: outcome(model, pixels, policy) for name, policy in policies.items()}
            file.write(json.dumps(line) + "\n")
            file.flush()


if __name__ == "__main__":
    main()
