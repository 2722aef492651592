"""Compare what an emulated CPU gave with what this machine gave, image by image."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Outcomes = dict[str, dict[str, Any]]
"""What `run_images` wrote of each image, by its name."""


def read_outcomes(path: Path) -> tuple[dict[str, Any], Outcomes]:
    """The circumstances that a file was last added to under, and its images; a line that was cut off is left out."""
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    circumstances = [row["circumstances"] for row in rows if "circumstances" in row]
    return (circumstances[-1] if circumstances else {}), {row["image"]: row for row in rows if "image" in row}


def compare(native: Outcomes, emulated: Outcomes, policy: str) -> dict[str, Any]:
    """How far the answers agree, over the images that both have.

    Args:
        native: of this machine.
        emulated: of the other CPU.
        policy: ``adaptive`` or ``full``.

    Returns:
        Counts of images, of equal pixels, labels and exits, and of where images left the emulated run; the least and
        the mean cosine of the two embeddings of an image; the largest difference of a gate, over all exits that the
        image met in both runs.

    Raises:
        ValueError: no image is in both.
    """
    both = [name for name in native if name in emulated]
    if not both:
        raise ValueError("no image is in both runs; run more images")
    pairs = [(native[name][policy], emulated[name][policy]) for name in both]
    gates = [abs(a["gates"][block] - b["gates"][block]) for a, b in pairs for block in a["gates"].keys() & b["gates"]]
    cosines = [cosine(a["embedding"], b["embedding"]) for a, b in pairs]
    blocks = Counter(b["exit_block"] for _, b in pairs)
    return {
        "images": len(both),
        "equal_pixels": sum(native[name]["pixels"] == emulated[name]["pixels"] for name in both),
        "equal_labels": sum(a["label"] == b["label"] for a, b in pairs),
        "equal_exits": sum(a["exit_block"] == b["exit_block"] for a, b in pairs),
        "exit_blocks": {str(block): blocks[block] for block in sorted(blocks)},
        "least_cosine": min(cosines),
        "mean_cosine": float(np.mean(cosines)),
        "gates": len(gates),
        "largest_gate_difference": max(gates, default=0.0),
    }


def equal_to_the_last_bit(one: Outcomes, other: Outcomes) -> dict[str, int]:
    """Images that both have, and those of which everything is the same: pixels, labels, exits, gates, embeddings."""
    both = one.keys() & other.keys()
    return {"images": len(both), "equal": sum(one[name] == other[name] for name in both)}


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    """Of two embeddings, in double precision.

    >>> cosine([1.0, 0.0], [2.0, 0.0])
    1.0
    """
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)
    return float(min(1.0, a @ b / np.sqrt((a @ a) * (b @ b))))


def merged(record: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """A record with new runs in place of the old ones of the same bundle, core and policy; the rest likewise."""

    def key(run: Mapping[str, Any]) -> tuple[str, str, str]:
        return run["bundle"], run["core"], run["policy"]

    runs = {key(run): run for run in [*record.get("runs", []), *new["runs"]]}
    arm_cores = {**record.get("arm_cores", {}), **new.get("arm_cores", {})}
    return {**record, **new, "arm_cores": arm_cores, "runs": [runs[name] for name in sorted(runs)]}
