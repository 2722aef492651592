"""Measure whether a gate gains by what earlier exits said, or by more of its own exit's answer.

    python benchmarks/experiments/gate_evidence.py BUNDLE --images SRC [--divisions 2] [--json F]

Every exit of the bundle answers all images. Gates of five kinds and their thresholds are fitted on one half of the
images and judged on the other, then the other way round, for several divisions. Use images that no head learned from.
Every row is a kind of gate; every column is a budget, the accuracy that thresholds may lose on the half they were
chosen on. A cell gives the FLOPs saved and the points lost on the other half. Differences between rows below the
standard error that is printed mean nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.bundle.manifest import block_names
from lraee.cli import errors_as_one_line
from lraee.model import Model
from lraee.policies.base import Verdict
from lraee.policies.given_shares import EveryExit
from lraee_benchmarks.analysis.cascade import Array, Cascade
from lraee_benchmarks.images import default_source, open_source
from lraee_benchmarks.render.table import Table
from lraee_calibration_data import label_rows, load_pixels

BATCH = 64
BUDGETS = (0.25, 0.5, 0.75, 1.0, 1.5)
"""Points that thresholds may lose where they are chosen."""

TOP = 5
"""Largest probabilities that a gate of the third kind reads."""

TINY = 1e-6
"""Least probability in a logarithm."""

STEPS = 30
RIDGE = 1e-3

LARGEST, PAPER, OWN, EARLIER, REGRET = (
    "largest probability",
    "the paper's three features",
    f"{TOP} largest probabilities, entropy, variance",
    "these and the two exits before",
    "the same, fitted to 'full depth is no better'",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heard:
    """What all exits said of all images."""

    probabilities: NDArray[np.float32]
    """(exits, images, labels)."""
    features: NDArray[np.float32]
    """(exits, images, 3)."""
    cascade: Cascade
    """What was right, and what it costs."""


def listen(model: Model, pixels: NDArray[np.uint8], classes: NDArray[np.int64]) -> Heard:
    """Let every exit answer every image."""
    policy, manifest = EveryExit(), model.manifest
    blocks = tuple(exit.block for exit in manifest.exits)
    said: list[list[Verdict]] = [[] for _ in blocks]
    answers = []
    for at in range(0, len(pixels), BATCH):
        answers.append(model.run_pixels(pixels[at : at + BATCH], policy=policy))
        for of_exit, block in zip(said, blocks, strict=True):
            of_exit.append(policy.verdicts[block])
    probabilities = np.stack([np.concatenate([verdict.probabilities for verdict in one]) for one in said])
    labels = len(model.labels)
    trunk = ("stem", *block_names(manifest.tower.blocks))
    up_to = np.cumsum([manifest.flops_of(name, labels) for name in trunk])
    full = np.concatenate([one.probabilities for one in answers]).argmax(axis=1)
    right = np.concatenate([probabilities.argmax(axis=2) == classes, (full == classes)[None]])
    features = np.stack([np.concatenate([verdict.features for verdict in one]) for one in said])
    visits = np.array([manifest.flops_of(f"exit_{block:02d}", labels) for block in blocks])
    return Heard(
        probabilities=probabilities,
        features=features,
        cascade=Cascade(
            good=right.T.astype(np.float64),
            leaving=np.append([up_to[block] for block in blocks], manifest.full_flops) / manifest.full_flops,
            visits=visits / manifest.full_flops,
        ),
    )


def inputs_of(heard: Heard, place: int) -> Mapping[str, Array]:
    """What the gates of one exit read, (images, features) by kind of gate."""
    probabilities = heard.probabilities[place].astype(np.float64)
    largest = -np.sort(-probabilities, axis=1)[:, :TOP]
    entropy = -(probabilities * np.log(np.maximum(probabilities, TINY))).sum(axis=1)
    own = np.column_stack([np.log(np.maximum(largest, TINY)), entropy, heard.features[place, :, 2]])
    columns, best = [own], probabilities.argmax(axis=1)
    for before in range(max(0, place - 2), place):
        earlier = np.maximum(heard.probabilities[before].astype(np.float64), TINY)
        divergence = (probabilities * np.log(np.maximum(probabilities, TINY) / earlier)).sum(axis=1)
        agrees = earlier.argmax(axis=1) == best
        columns.append(np.column_stack([agrees, divergence, np.log(earlier[np.arange(len(best)), best])]))
    with_earlier = np.concatenate(columns, axis=1)
    paper = heard.features[place].astype(np.float64)
    return {LARGEST: paper[:, :1], PAPER: paper, OWN: own, EARLIER: with_earlier, REGRET: with_earlier}


def fitted(inputs: Array, target: Array, half: NDArray[np.bool_]) -> Array:
    """Fit a logistic regression on the images of `half` and give its logit for all, (images,)."""
    center, spread = inputs[half].mean(axis=0), np.maximum(inputs[half].std(axis=0), 1e-9)
    design = np.column_stack([(inputs - center) / spread, np.ones(len(inputs))])
    known, wanted = design[half], target[half]
    penalty = RIDGE * len(known) * np.diag([1.0] * inputs.shape[1] + [1e-3])
    weights = np.zeros(design.shape[1])
    for _ in range(STEPS):
        share = 0.5 * (1 + np.tanh(0.5 * known @ weights))
        hessian = (known * (share * (1 - share) + 1e-6)[:, None]).T @ known + penalty
        weights -= np.linalg.solve(hessian, known.T @ (share - wanted) + penalty @ weights)
    return np.asarray(design @ weights)


def gates(heard: Heard, kind: str, half: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Fit the gates of all exits on `half` and give their values for all images, (images, exits)."""
    values = []
    for place in range(len(heard.cascade.visits)):
        inputs = inputs_of(heard, place)[kind]
        good = heard.cascade.good[:, place]
        target = np.maximum(good, 1 - heard.cascade.good[:, -1]) if kind == REGRET else good
        values.append(inputs[:, 0] if kind == LARGEST else fitted(inputs, target, half))
    return np.stack(values, axis=1).astype(np.float32)


def measure(heard: Heard, kind: str, divisions: int) -> list[tuple[float, float, float]]:
    """Give for each budget the share of FLOPs saved, the points lost and their standard error, on the other halves."""
    images = len(heard.cascade.good)
    found: list[list[tuple[float, float, float]]] = [[] for _ in BUDGETS]
    for division in range(divisions):
        first = np.random.default_rng(division).permutation(images) < images // 2
        for half in (first, ~first):
            gate = gates(heard, kind, half)
            known, other = heard.cascade.some(half), heard.cascade.some(~half)
            points = [(thresholds, *known.outcome(gate[half], thresholds)) for thresholds in known.search(gate[half])]
            for place, budget in enumerate(BUDGETS):
                fitting = [point for point in points if point[2].mean() >= -budget / 100]
                closed = np.full(len(heard.cascade.visits), np.inf)
                thresholds = max(fitting, key=lambda point: float(point[1].mean()))[0] if fitting else closed
                saved, change = other.outcome(gate[~half], thresholds)
                error = change.std() / len(change) ** 0.5
                found[place].append((float(saved.mean()), 100 * float(change.mean()), 100 * float(error)))
    means = [np.mean(of_budget, axis=0) for of_budget in found]
    return [(float(saved), float(lost), float(error / 2**0.5)) for saved, lost, error in means]  # of two halves


def main() -> None:
    """Listen, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("--images", help="labelled folder or zip; by default the shipped test images")
    parser.add_argument("--divisions", type=int, default=2, help="of the images into halves")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    with errors_as_one_line():
        model = lraee.load(options.bundle)
        dataset = open_source(options.images or default_source(model.manifest.model))
        classes = label_rows(dataset, model.labels)
        pixels = load_pixels(dataset, model.manifest.preprocessing).pixels
    heard, blocks = listen(model, pixels, classes), ", ".join(str(exit.block) for exit in model.manifest.exits)
    rows = {kind: measure(heard, kind, options.divisions) for kind in (LARGEST, PAPER, OWN, EARLIER, REGRET)}
    error = max(error for cells in rows.values() for _, _, error in cells)
    print(f"{options.bundle}: {len(pixels)} images, exits after blocks {blocks}\n")
    cells = [[kind, *(f"{saved:.1%}, {lost:+.2f}" for saved, lost, _ in found)] for kind, found in rows.items()]
    print(Table(header=("gate reads", *(f"{budget:g} points" for budget in BUDGETS)), rows=cells).to_markdown())
    print(f"\nStandard error of a difference to full depth: at most {error:.2f} points.")
    if options.json is not None:
        options.json.write_text(json.dumps({"images": len(pixels), "budgets": BUDGETS, "rows": rows}) + "\n", "utf-8")


if __name__ == "__main__":
    main()
