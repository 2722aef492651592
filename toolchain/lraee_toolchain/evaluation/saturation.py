"""What it costs that no product of a bundle can saturate: accuracy and time, against the usual quantization."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from lraee.ort.cpu import int8_products_saturate
from lraee_benchmarks.analysis.intervals import Estimate, mean_over_images
from lraee_benchmarks.running.rounds import Plan, interleave, timed
from lraee_toolchain.parts.runner import Chain

IMAGES = 100
WARM_UP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Saturation:
    """Full depth quantized so that no product saturates, against the usual quantization of the same tower."""

    images: int
    """That accuracy was measured on."""
    usual: Estimate
    """Accuracy of the usual quantization, in sessions that are exact."""
    unsaturated: Estimate
    difference: Estimate
    """Of the two, paired: without saturation less usual."""
    matters_here: bool
    """Whether products of the usual quantization saturate on the CPU that took the times, unless sessions are exact."""
    threads: int
    """That took the times, batch 1."""
    usual_ms: float
    """Median of full depth of the usual quantization, in sessions that are exact on this CPU."""
    unsaturated_ms: float
    """Median of full depth without saturation, in sessions with default options."""


def measure_saturation(
    usual: Callable[[NDArray[np.uint8]], object],
    unsaturated: Callable[[NDArray[np.uint8]], object],
    pixels: NDArray[np.uint8],
    right: tuple[NDArray[np.float64], NDArray[np.float64]],
    *,
    threads: int,
) -> Saturation:
    """Compare the two, image by image in one run.

    Args:
        usual: runs one image, (1, size, size, 3) uint8, to full depth, exactly.
        unsaturated: likewise, with default options.
        pixels: (images, size, size, 3) uint8; the first `IMAGES` are timed.
        right: (images,) 1 where full depth is right, of the usual quantization and of the other.
        threads: that both run on.
    """
    images = [np.ascontiguousarray(image[None]) for image in pixels[:IMAGES]]
    plan = Plan(warmup_rounds=WARM_UP, rounds=len(images), min_seconds=0, seed=0)
    rows = [timed(lambda image: usual(images[image])), timed(lambda image: unsaturated(images[image]))]
    usual_ms, unsaturated_ms = np.median(interleave(rows, len(images), plan).samples_ms, axis=0).tolist()
    before, after = right
    return Saturation(
        images=len(before),
        usual=mean_over_images(before),
        unsaturated=mean_over_images(after),
        difference=mean_over_images(after - before),
        matters_here=int8_products_saturate(),
        threads=threads,
        usual_ms=usual_ms,
        unsaturated_ms=unsaturated_ms,
    )


def full_depth_of(chain: Chain) -> Callable[[NDArray[np.uint8]], object]:
    """Run one image through a tower to the end, as a bundle does."""
    *_, name = chain.names
    last, depth = f"{name}_class", len(chain.names)

    def run(batch: NDArray[np.uint8]) -> object:
        if not chain.has(last):
            *_, tokens = chain.after_blocks(batch)
        else:
            *_, before = islice(chain.after_blocks(batch), depth)
            tokens = chain.session(last).run(["tokens_out"], {"tokens": before})[0]
        return chain.tail(tokens)

    return run
