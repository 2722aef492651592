"""Measure how far a bundle's answers move when the last bit of its tokens does, as on another CPU or runtime.

    python benchmarks/experiments/last_bit.py BUNDLE --images SOURCE [--count 500] [--seeds 3] [--json F]

Float kernels of two CPUs or runtimes add in another order, so that their results differ in the last bit. An INT8 tower
magnifies that: a value halfway between two levels becomes the other level, one step away. Here the same runtime runs
the same images twice, at the default operating point. In the second run each value of the tokens becomes, at random,
its upper or lower float32 neighbour, or stays, after every block or after the first alone. Another runtime that rounds
differently cannot be expected to agree better than that.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.arrays import FloatArray
from lraee.cli import errors_as_one_line
from lraee.engine.orchestrator import Answers, joined, run
from lraee.engine.parts import Parts
from lraee.engine.sized_tokens import SizedTokens, Tokens
from lraee.policies.base import Verdict, bind
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.render.table import Table
from lraee_benchmarks.render.wording import device_line
from lraee_calibration_data import load_pixels, open_dataset


def neighbours(values: FloatArray, random: np.random.Generator) -> FloatArray:
    """Replace each float32 value by its upper neighbour, its lower one, or itself, a third each."""
    steps = random.integers(-1, 2, values.shape, np.int8)
    moved = np.nextafter(values, np.where(steps > 0, np.float32(np.inf), np.float32(-np.inf)), dtype=np.float32)
    return np.where(steps == 0, values, moved)


class Rounded:
    """Runs the parts of a bundle as `lraee.engine.parts.Parts` does, and moves the last bit of tokens after blocks."""

    def __init__(self, parts: Parts, random: np.random.Generator, *, first_alone: bool) -> None:
        self._parts, self._random, self._first_alone = parts, random, first_alone
        self.depth = parts.depth

    def stem(self, pixels: NDArray[np.uint8]) -> Tokens:
        """Run the stem."""
        return self._parts.stem(pixels)

    def block(self, number: int, tokens: Tokens) -> Tokens:
        """Run a block and move the last bit of its tokens."""
        after = self._parts.block(number, tokens)
        if self._first_alone and number > 1:
            return after
        if isinstance(after, SizedTokens):
            return SizedTokens(neighbours(after.values, self._random), after.sizes)
        return neighbours(after, self._random)

    def has_exit(self, number: int) -> bool:
        """Tell whether there is an exit."""
        return self._parts.has_exit(number)

    def exit(self, number: int, tokens: Tokens, rows: NDArray[np.intp]) -> Verdict:
        """Evaluate an exit."""
        return self._parts.exit(number, tokens, rows)

    def tail(self, tokens: Tokens) -> tuple[FloatArray, FloatArray]:
        """Run the tail."""
        return self._parts.tail(tokens)


def rounded_answers(
    model: lraee.Model, pixels: NDArray[np.uint8], random: np.random.Generator, *, first_alone: bool
) -> Answers:
    """Answer pixels (images, size, size, 3) uint8 one at a time, with the last bit of tokens moved."""
    found = []
    for image in pixels:
        route = bind(model.policy, model.manifest)
        found.append(run(Rounded(model.parts.for_route(route), random, first_alone=first_alone), image[None], route))
    return joined(found)


def agreement(one: Answers, other: Answers) -> dict[str, float]:
    """Count equal answers, and find the least cosine of embeddings where blocks agree."""
    blocks = one.exit_block == other.exit_block
    labels = one.probabilities.argmax(axis=1) == other.probabilities.argmax(axis=1)
    cosines = (one.embedding * other.embedding).sum(axis=1)[blocks]
    return {"same": int((blocks & labels).sum()), "least_cosine": float(cosines.min(initial=1.0))}


def measured(model: lraee.Model, pixels: NDArray[np.uint8], seeds: int) -> dict[str, list[dict[str, float]]]:
    """Compare plain answers with those of each seed, for both places where bits are moved."""
    plain = joined([model.run_pixels(image[None]) for image in pixels])
    return {
        place: [
            agreement(plain, rounded_answers(model, pixels, np.random.default_rng(seed), first_alone=first_alone))
            for seed in range(seeds)
        ]
        for place, first_alone in (("every block", False), ("the first block", True))
    }


def table(found: dict[str, list[dict[str, float]]], images: int) -> Table:
    """Write a row for each place where bits are moved."""
    rows = []
    for place, runs in found.items():
        same = ", ".join(f"{run['same']:.0f}" for run in runs)
        rows.append([place, f"{same} of {images}", f"{min(run['least_cosine'] for run in runs):.6f}"])
    return Table(header=["last bit moved after", "same label and block", "least cosine, same block"], rows=rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print a table, and write a record where one is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--images", type=Path, required=True, help="folder or archive of images")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    with errors_as_one_line():
        model = lraee.load(given.bundle, threads=1)
        dataset = open_dataset(given.images)
        chosen = np.random.default_rng(0).permutation(len(dataset.samples))[: given.count]
        pixels = load_pixels(dataset, model.manifest.preprocessing, chosen.tolist()).pixels
        device = describe_device()
        found = measured(model, pixels, given.seeds)
        print(device_line(device))
        print(table(found, len(pixels)).to_markdown())
        if given.json is not None:
            record: dict[str, Any] = {"device": device_line(device), "images": len(pixels), "runs": found}
            given.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
