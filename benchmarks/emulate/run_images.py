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
from lraee.bundle.manifest import Manifest
from lraee.model import Model
from lraee.ort import sessions
from lraee.ort.cpu import cpu_flags
from lraee.policies import Policy, Route
from lraee.policies.base import Verdict
from lraee_benchmarks.device.description import int8_features
from lraee_calibration_data import fashion_mnist_test, load_pixels, open_dataset

POLICIES: dict[str, Policy] = {"adaptive": lraee.Adaptive(), "full": lraee.Full()}


class Listening:
    """A policy that decides as another does, and also notes the gate of every exit on the way."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.gates: dict[int, float] = {}

    def bind(self, manifest: Manifest) -> Listening:
        """For one image."""
        self.gates = {}
        self.route: Route = self.policy.bind(manifest)
        return self

    def visits(self, block: int) -> bool:
        """All."""
        return True

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Where the other policy would."""
        self.gates[block] = float(verdict.gate[0])
        if self.route.visits(block):
            return self.route.leaves(block, verdict)
        return np.zeros(len(verdict.gate), np.bool_)


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
    listening = Listening(policy)
    answers = model.run_pixels(pixels, policy=listening)
    return {
        "label": model.labels[int(answers.probabilities[0].argmax())],
        "score": float(answers.probabilities[0].max()),
        "exit_block": int(answers.exit_block[0]),
        "gates": {str(block): gate for block, gate in listening.gates.items()},
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
    """Command line."""
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
