"""Proves that the exported float graphs compute what torch computes, stage by stage.

Embeddings of one model lie close together (with random weights their cosine is almost 1), so a plain cosine hides
errors. Both measures here look at differences between images: the cosine after the mean over images is subtracted, and
the largest error divided by the spread, the standard deviation over images of that same value's channel average.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lraee.errors import ParityError

MIN_COSINE = 0.9999
"""Smallest mean-centred cosine of any image at any stage."""

MAX_ERROR = 1e-3
"""Largest absolute error of any value at any stage, relative to the spread of that stage. Float32 towers measure
2e-5 or less here (sums in another order); a wrong activation, crop or channel order 0.01 and more."""

MIN_IMAGES = 8
"""Fewer images leave too little spread to measure against."""

BATCH = 8
"""Images that are computed together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageParity:
    """Holds how well one stage agrees."""

    name: str
    """``stem``, ``block_01`` ..., ``embedding``."""
    cosine: float
    """Smallest mean-centred cosine over the images."""
    error: float
    """Largest absolute error over the spread."""

    @property
    def holds(self) -> bool:
        """Whether the stage keeps both bounds."""
        return self.cosine >= MIN_COSINE and self.error <= MAX_ERROR


def compare_stage(name: str, exported: NDArray[np.float32], expected: NDArray[np.float32]) -> StageParity:
    """Compare (images, ...) float32 values of one stage."""
    got = exported.reshape(len(exported), -1).astype(np.float64)
    want = expected.reshape(len(expected), -1).astype(np.float64)
    center = want.mean(axis=0)
    got_centred, want_centred = got - center, want - center
    lengths = np.linalg.norm(got_centred, axis=1) * np.linalg.norm(want_centred, axis=1)
    cosine = (got_centred * want_centred).sum(axis=1) / np.maximum(lengths, 1e-300)
    spread = np.sqrt((want_centred**2).mean())
    if not np.isfinite(got).all() or spread == 0:
        return StageParity(name=name, cosine=-1.0, error=float("inf"))
    return StageParity(name=name, cosine=float(cosine.min()), error=float(np.abs(got - want).max() / spread))


def torch_stages(torch_model: Any, batch: torch.Tensor) -> list[NDArray[np.float32]]:
    """Compute tokens before block 1, after every block, and the unit embedding, as open_clip does.

    Args:
        torch_model: open_clip model.
        batch: (images, 3, size, size) float32, normalized.

    Returns:
        (images, tokens, width) for each stage, last (images, embed_dim).
    """
    visual = torch_model.visual
    from_timm = hasattr(visual, "trunk")
    blocks = visual.trunk.blocks if from_timm else visual.transformer.resblocks
    batch_first = from_timm or getattr(visual.transformer, "batch_first", True)
    stages: list[torch.Tensor] = []

    def keep(tokens: torch.Tensor) -> None:
        stages.append(tokens if batch_first else tokens.transpose(0, 1))

    hooks = [blocks[0].register_forward_pre_hook(lambda _module, inputs: keep(inputs[0]))]
    hooks += [block.register_forward_hook(lambda _module, _inputs, output: keep(output)) for block in blocks]
    try:
        with torch.no_grad():
            stages.append(torch.nn.functional.normalize(visual(batch), dim=-1))
    finally:
        for hook in hooks:
            hook.remove()
    return [stage.float().numpy() for stage in stages]


def check_parity(
    exported: Callable[[NDArray[np.uint8]], list[NDArray[np.float32]]],
    torch_model: Any,
    transform: Callable[[Any], torch.Tensor],
    read_pixels: Callable[[Image.Image], NDArray[np.uint8]],
    images: Sequence[Image.Image],
) -> list[StageParity]:
    """Compare the whole tower and each block, from the image file on.

    Args:
        exported: the float graphs: (images, size, size, 3) uint8 to the stages in the order of `torch_stages`.
        torch_model: what the graphs were built from.
        transform: open_clip's preprocessing, image to (3, size, size) float32.
        read_pixels: this project's preprocessing, image to (size, size, 3) uint8.
        images: at least `MIN_IMAGES` RGB images, best of odd sizes.

    Raises:
        ParityError: a stage differs by more than the bounds, named with both figures.
    """
    if len(images) < MIN_IMAGES:
        raise ParityError(f"parity was to be shown on {len(images)} images, wanted at least {MIN_IMAGES}; give more")
    ours: list[list[NDArray[np.float32]]] = []
    theirs: list[list[NDArray[np.float32]]] = []
    for start in range(0, len(images), BATCH):
        chunk = images[start : start + BATCH]
        ours.append(exported(np.stack([read_pixels(image) for image in chunk])))
        theirs.append(torch_stages(torch_model, torch.stack([transform(image) for image in chunk])))
    names = ["stem", *(f"block_{number:02d}" for number in range(1, len(ours[0]) - 1)), "embedding"]
    parities = [
        compare_stage(name, np.concatenate(a), np.concatenate(b))
        for name, a, b in zip(names, zip(*ours, strict=True), zip(*theirs, strict=True), strict=True)
    ]
    for parity in parities:
        if not parity.holds:
            raise ParityError(
                f"the exported {parity.name} differs from torch: mean-centred cosine {parity.cosine:.6f} (wanted at "
                f"least {MIN_COSINE}), error {parity.error:.2e} of the spread (wanted at most {MAX_ERROR:.0e}); "
                "preprocessing, activation or weights were taken over wrongly, please report this model"
            )
    return parities
