"""Time rows of T1 against each other, image by image in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import lraee
from lraee.engine.orchestrator import run
from lraee.engine.parts import Parts
from lraee.engine.sized_tokens import Tokens
from lraee.policies import Adaptive, ExitAt, Full
from lraee.policies.base import Verdict
from lraee_benchmarks.running.rounds import Measure, Plan, interleave, timed
from lraee_toolchain.config.options import Precision
from lraee_toolchain.evaluation.metrics import Latency, LatencyRow, Way
from lraee_toolchain.parts.runner import Chain

IMAGES = 200
WARM_UP = 10

THREADS = 1
"""Rows of one process share its cores: with more, the sleeping threads of the other rows' sessions disturb the times.
`lraee-bench` measures any number."""

Run = Callable[[NDArray[np.uint8]], object]


class _ExitAtTheEnd:
    """A tower whose tail is an exit, to time an SSA head at the last block.

    Another block and its exit stand in: the bundle's last block gives the class token alone, and all blocks and exits
    have the same shapes.
    """

    def __init__(self, parts: Parts, block: int) -> None:
        self._parts, self._block = parts, block
        self.depth, self.stem = parts.depth, parts.stem

    def block(self, number: int, tokens: Tokens) -> Tokens:
        """Run a block of the bundle; its last is replaced by the one before."""
        return self._parts.block(min(number, self.depth - 1), tokens)

    def has_exit(self, number: int) -> bool:
        """No exit stands before the end."""
        return False

    def exit(self, number: int, tokens: Tokens, rows: NDArray[np.intp]) -> Verdict:
        """Run the exit that stands in."""
        return self._parts.exit(self._block, tokens, rows)

    def tail(self, tokens: Tokens) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Run the exit in place of the tail."""
        verdict = self._parts.exit(self._block, tokens, np.arange(len(tokens)))
        return verdict.embedding, verdict.probabilities


def measure_latency(bundle: Path, float_chain: Chain, pixels: NDArray[np.uint8], *, main: Precision) -> Latency:
    """Measure the mean time of each row on the same images, batch 1, interleaved.

    Args:
        bundle: with operating points, or only the full-depth rows are timed.
        float_chain: the float parts, on `THREADS` threads.
        pixels: (images, size, size, 3) uint8; the first `IMAGES` are used.
        main: the bundle's precision.
    """
    model = lraee.load(bundle, threads=THREADS)
    model.warm()
    rows: dict[tuple[Way, Precision], Run] = {
        ("full", "FP32"): lambda batch: float_chain.stages(batch),
        ("full", main): lambda batch: model.run_pixels(batch, policy=Full()),
    }
    if model.manifest.exits:
        block = model.manifest.exits[-1].block
        ExitAt(block).bind(model.manifest)
        ended = _ExitAtTheEnd(model.parts, block)
        rows["ssa_last", main] = lambda batch: run(ended, batch, Full())
    if model.manifest.operating_points:
        merged = model.manifest.schedule_of("balanced") is not None
        way: Way = "routed_merged" if merged else "routed"
        rows[way, main] = lambda batch: model.run_pixels(batch, policy=Adaptive("balanced"))
    images = [np.ascontiguousarray(image[None]) for image in pixels[:IMAGES]]
    plan = Plan(warmup_rounds=WARM_UP, rounds=len(images), min_seconds=0, seed=0)
    times = interleave([_timed(run, images) for run in rows.values()], len(images), plan).samples_ms
    means = dict(zip(rows, times.mean(axis=0).tolist(), strict=True))
    return Latency(
        threads=THREADS,
        images=len(images),
        rows=tuple(
            LatencyRow(way=way, precision=precision, mean_ms=mean, saved=1 - mean / means["full", main])
            for (way, precision), mean in means.items()
        ),
    )


def _timed(run: Run, images: Sequence[NDArray[np.uint8]]) -> Measure:
    return timed(lambda image: run(images[image]))
