"""Find the activation ranges: calibration images flow through the float tower block by block.

Only the tokens between two blocks are kept, in a file, and of each quantized tensor only its
range: memory is bounded whatever the number of images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee_exporters.graphs.block import QUANTIZED_INPUTS
from lraee_exporters.int8.linear import ActivationRange
from lraee_toolchain.array_file import ArrayFile
from lraee_toolchain.config.options import RangeMethod
from lraee_toolchain.parts.runner import BATCH, Chain
from lraee_toolchain.quantization.ranges import RangeCollector


def calibrate(
    chain: Chain, pixels: NDArray[np.uint8], scratch: Path, *, method: RangeMethod, percentile: float
) -> dict[str, ActivationRange]:
    """Find the ranges of every quantized tensor, by ``block_NN/<input>`` and ``tail/<input>``.

    Args:
        chain: the float parts, with their observed variants.
        pixels: (images, size, size, 3) uint8.
        scratch: folder for the tokens between blocks; about ``4 * images * tokens * width`` bytes.
        method: ``minmax`` or ``percentile``.
        percentile: for the latter, such as 99.99.
    """

    def chosen(collector: RangeCollector) -> ActivationRange:
        return collector.minmax() if method == "minmax" else collector.percentile(percentile)

    ranges: dict[str, ActivationRange] = {}
    path = scratch / "tokens.npy"
    first = chain.stem(pixels[:1])
    with ArrayFile(path, np.float32, (len(pixels), *first.shape[1:])) as tokens:
        for start in range(0, len(pixels), BATCH):
            tokens.write(start, chain.stem(pixels[start : start + BATCH]))
        for name in chain.names:
            collectors = {value: RangeCollector() for value in QUANTIZED_INPUTS}
            for start in range(0, len(pixels), BATCH):
                after, observed = chain.observe_block(name, tokens.read(start, start + BATCH))
                for value, collector in collectors.items():
                    collector.add(observed[value])
                tokens.write(start, after)
            chain.drop(f"{name}.observed")
            ranges |= {f"{name}/{value}": chosen(collector) for value, collector in collectors.items()}
        of_tail: dict[str, RangeCollector] = {}
        for start in range(0, len(pixels), BATCH):
            for value, seen in chain.observe_tail(tokens.read(start, start + BATCH)).items():
                of_tail.setdefault(value, RangeCollector()).add(seen)
    ranges |= {f"tail/{value}": chosen(collector) for value, collector in of_tail.items()}
    path.unlink()
    return ranges
