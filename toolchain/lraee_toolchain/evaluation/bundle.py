"""Measure the finished bundle on images that no other step has seen, with the runtime that users run.

Every image runs once, through all exits; the policies are replayed over that by the runtime's orchestrator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.policies import Adaptive, ExitAt, Full, Policy
from lraee_benchmarks.analysis.intervals import Estimate, mean_over_images
from lraee_toolchain.early_exit.features import Teacher
from lraee_toolchain.evaluation.replay import Recording
from lraee_toolchain.parts.runner import BATCH


def evaluate_bundle(
    bundle: Path, pixels: NDArray[np.uint8], classes: NDArray[np.int64], teacher: Teacher
) -> dict[str, Any]:
    """Top-1, FLOPs and exit shares of every policy of a bundle, as JSON-able data.

    Args:
        bundle: folder.
        pixels: (images, size, size, 3) uint8.
        classes: (images,) true label index.
        teacher: the float tower's answers.

    Returns:
        ``{"images": n, "float": {...}, "rows": [...]}``; accuracies are shares, differences are to full-depth INT8.
    """
    model = lraee.load(bundle)
    manifest = model.manifest
    policies: dict[str, Policy] = {"full depth": Full()}
    policies |= {f"adaptive={point.name}": Adaptive(point.name) for point in manifest.operating_points}
    policies |= {f"exit={exit.block}": ExitAt(exit.block) for exit in manifest.exits}
    parts: dict[str, list[tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.int32]]]] = {n: [] for n in policies}
    for start in range(0, len(pixels), BATCH):
        recording = Recording(model, np.ascontiguousarray(pixels[start : start + BATCH]))
        wanted = classes[start : start + BATCH]
        for name, policy in policies.items():
            answers = recording.replay(policy)
            right = answers.probabilities.argmax(axis=1) == wanted
            parts[name].append((right, model.flops_of_run(answers), np.where(answers.early, answers.exit_block, 0)))
    results = {name: [np.concatenate(column) for column in zip(*found, strict=True)] for name, found in parts.items()}
    full_right = results["full depth"][0].astype(np.float64)
    float_right = (teacher.probabilities.argmax(axis=1) == classes).astype(np.float64)
    rows = []
    for name, (is_right, flops, exits) in results.items():
        right = is_right.astype(np.float64)
        blocks, counts = np.unique(exits, return_counts=True)
        rows.append(
            {
                "name": name,
                "accuracy": _interval(mean_over_images(right)),
                "difference_to_full": _interval(mean_over_images(right - full_right)),
                "difference_to_float": _interval(mean_over_images(right - float_right)),
                "flops": float(flops.mean()),
                "flops_saved": float(1 - flops.mean() / manifest.full_flops),
                "exit_shares": {
                    ("full" if block == 0 else str(block)): float(count / len(right))
                    for block, count in zip(blocks.tolist(), counts.tolist(), strict=True)
                },
                "quadrants": _quadrants(right, full_right),
            }
        )
    return {
        "images": len(pixels),
        "full_flops": manifest.full_flops,
        "float": {"accuracy": _interval(mean_over_images(float_right))},
        "rows": rows,
    }


def _quadrants(right: NDArray[np.float64], full: NDArray[np.float64]) -> dict[str, int]:
    """The paper's four quadrants: how exit and full depth agree, as numbers of images."""
    return {
        "both_right": int((right * full).sum()),
        "rescue": int((right * (1 - full)).sum()),
        "loss": int(((1 - right) * full).sum()),
        "both_wrong": int(((1 - right) * (1 - full)).sum()),
    }


def _interval(interval: Estimate) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
