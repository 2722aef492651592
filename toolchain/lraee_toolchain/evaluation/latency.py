"""Time the rows of the comparison table against each other, image by image in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.engine.orchestrator import run
from lraee.engine.parts import Parts
from lraee.policies import Adaptive, ExitAt, Full
from lraee.policies.base import Verdict
from lraee_benchmarks.running.rounds import Measure, Plan, interleave
from lraee_toolchain.parts.runner import Chain

IMAGES = 200
WARM_UP = 10

THREADS = 1
"""Rows of one process share its cores: with more, the sleeping threads of the other rows' sessions disturb the times.
`lraee-bench` measures any number."""

Run = Callable[[NDArray[np.uint8]], object]


class _ExitAtTheEnd:
    """A tower whose tail is an exit: what an SSA head at the last block costs.

    Another block and its exit stand in: the bundle's last block gives the class token alone, and all blocks and exits
    have the same shapes.
    """

    def __init__(self, parts: Parts, block: int) -> None:
        self._parts, self._block = parts, block
        self.depth, self.stem = parts.depth, parts.stem

    def block(self, number: int, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        """As in the bundle, but for the last."""
        return self._parts.block(min(number, self.depth - 1), tokens)

    def has_exit(self, number: int) -> bool:
        """Only at the end."""
        return False

    def exit(self, number: int, tokens: NDArray[np.float32], rows: NDArray[np.intp]) -> Verdict:
        """The exit that stands in."""
        return self._parts.exit(self._block, tokens, rows)

    def tail(self, tokens: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The exit in place of the tail."""
        verdict = self._parts.exit(self._block, tokens, np.arange(len(tokens)))
        return verdict.embedding, verdict.probabilities


def measure_latency(bundle: Path, float_chain: Chain, pixels: NDArray[np.uint8], *, main: str) -> dict[str, Any]:
    """Mean milliseconds of each row on the same images, batch 1, interleaved.

    Args:
        bundle: with at least one exit, or only the full-depth rows are timed.
        float_chain: the float parts, on `THREADS` threads.
        pixels: (images, size, size, 3) uint8; the first `IMAGES` are used.
        main: name of the bundle's precision.

    Returns:
        ``{"threads": n, "images": n, "rows": {name: {"mean_ms": x, "saved": share}}}``, saved against INT8 full depth.
    """
    model = lraee.load(bundle, threads=THREADS)
    model.warm()
    rows: dict[str, Run] = {
        "FP32, full depth": lambda batch: float_chain.stages(batch),
        f"{main}, full depth": lambda batch: model.run_pixels(batch, policy=Full()),
    }
    if model.manifest.exits:
        block = model.manifest.exits[-1].block
        ExitAt(block).bind(model.manifest)
        ended = _ExitAtTheEnd(model.parts, block)
        rows[f"{main}, SSA head at the last block, full depth"] = lambda batch: run(ended, batch, Full())
        rows[f"LRA-EE on {main}"] = lambda batch: model.run_pixels(batch, policy=Adaptive("balanced"))
    images = [np.ascontiguousarray(image[None]) for image in pixels[:IMAGES]]
    plan = Plan(warmup_rounds=WARM_UP, rounds=len(images), min_seconds=0, seed=0)
    times = interleave([_timed(run, images) for run in rows.values()], len(images), plan).samples_ms
    means = dict(zip(rows, times.mean(axis=0).tolist(), strict=True))
    full = means[f"{main}, full depth"]
    return {
        "threads": THREADS,
        "images": len(images),
        "rows": {name: {"mean_ms": mean, "saved": 1 - mean / full} for name, mean in means.items()},
    }


def _timed(run: Run, images: Sequence[NDArray[np.uint8]]) -> Measure:
    """Milliseconds of a row on the image of an index."""

    def measure(image: int) -> float:
        start = time.perf_counter()
        run(images[image])
        return (time.perf_counter() - start) * 1e3

    return measure
