"""A token-pruning baseline in the manner of AdaViT and EViT, on the frozen tower.

Every image runs through the whole depth, but the patches that matter least to [CLS] are dropped on the way. It saves
FLOPs in width where early exit saves them in depth, so LRA-EE is compared with it at matched FLOPs. Nothing is trained:
after each of `PRUNED_AFTER` a share of the patches is kept, those whose token has the largest cosine to the class
token. AdaViT's learned masks (Meng et al., arXiv 2111.15668) choose better and need training through the tower; EViT
(Liang et al., arXiv 2202.07800) drops by the attention of [CLS], which a frozen block does not output.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper

from lraee.ort.sessions import SessionSettings, make_session
from lraee_toolchain.early_exit.task import Costs
from lraee_toolchain.parts.runner import BATCH, Chain

FloatArray = NDArray[np.float32]

PRUNED_AFTER = (3 / 12, 6 / 12, 9 / 12)
"""Depths after which patches are dropped, as in EViT."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """What the tower does at one keep rate."""

    keep: float
    """Share of the patches kept at each of `PRUNED_AFTER`."""
    saved: float
    """Share of full-depth FLOPs."""
    good: NDArray[np.float64]
    """(images,) 1 where the answer is right."""


def token_counts(tokens: int, depth: int, keep: float) -> list[int]:
    """Count the tokens that each block computes, [CLS] included."""
    counts, patches = [], tokens - 1
    stops = {round(depth * share) for share in PRUNED_AFTER}
    for block in range(1, depth + 1):
        counts.append(patches + 1)
        if block in stops:
            patches = max(1, int(np.ceil(keep * patches)))
    return counts


def flops_saved(counts: list[int], costs: Costs, *, tokens: int, width: int) -> float:
    """Compute the share of full-depth FLOPs saved: a block is linear in its tokens but for the two attention GEMMs.

    The last block computes keys and values of its tokens, and of the rest the class token alone.
    """
    attention = 4 * tokens * tokens * width
    linear = costs.block - attention
    blocks = sum(linear * count / tokens + 4 * count * count * width for count in counts[:-1])
    of_each_token = 4 * width * width + 4 * width
    last = costs.last - (tokens - counts[-1]) * of_each_token
    return 1 - (costs.stem + blocks + last + costs.tail) / costs.full


def keep_for(saved: float, costs: Costs, *, tokens: int, width: int) -> float:
    """Find the keep rate that saves about this share of FLOPs, by bisection."""
    low, high = 0.02, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        counts = token_counts(tokens, costs.depth, middle)
        if flops_saved(counts, costs, tokens=tokens, width=width) > saved:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def measure_pruned(
    chain: Chain, parts: Path, pixels: NDArray[np.uint8], classes: NDArray[np.int64], costs: Costs, *, keep: float
) -> Pruned:
    """Run the tower with patches dropped.

    Args:
        chain: stem and tail of the tower.
        parts: its folder; blocks for fewer tokens are made from the graphs there, over the same weights.
        pixels: (images, size, size, 3) uint8.
        classes: (images,) label index.
        costs: FLOPs of the parts.
        keep: share of the patches kept each time.
    """
    shape = chain.stem(np.ascontiguousarray(pixels[:1])).shape
    tokens, width = shape[1], shape[2]
    counts = token_counts(tokens, costs.depth, keep)
    names = list(zip(chain.names, counts, strict=True))
    sessions = [_session(parts / f"{name}.onnx", tokens, width, count) for name, count in names]
    good: list[NDArray[np.bool_]] = []
    for start in range(0, len(pixels), BATCH):
        values = chain.stem(np.ascontiguousarray(pixels[start : start + BATCH]))
        for session, count in zip(sessions, counts, strict=True):
            values = _keep_patches(values, count - 1)
            values = session.run(["tokens_out"], {"tokens": values})[0]
        good.append(chain.tail(values)[1].argmax(axis=1) == classes[start : start + BATCH])
    saved = flops_saved(counts, costs, tokens=tokens, width=width)
    return Pruned(keep=keep, saved=saved, good=np.concatenate(good).astype(np.float64))


def _keep_patches(tokens: FloatArray, count: int) -> FloatArray:
    """Keep [CLS] and the `count` patches with the largest cosine to it, in their order."""
    if count >= tokens.shape[1] - 1:
        return tokens
    patches, first = tokens[:, 1:], tokens[:, :1]
    likeness = (patches * first).sum(axis=2) / np.maximum(np.linalg.norm(patches, axis=2), 1e-12)
    rows = np.sort(np.argsort(-likeness, axis=1, kind="stable")[:, :count], axis=1)
    kept = np.take_along_axis(patches, rows[:, :, None], axis=1)
    return np.ascontiguousarray(np.concatenate([first, kept], axis=1))


def _session(path: Path, tokens: int, width: int, count: int) -> ort.InferenceSession:
    """Open a block for `count` tokens: the same graph with other constants in its reshapes."""
    if count == tokens:
        return make_session(path, SessionSettings())
    model = onnx.load(str(path), load_external_data=False)
    for tensor in model.graph.initializer:
        if tensor.name.startswith((f"shape_n_{tokens}_{width}", f"shape_{tokens}_n_")):
            shape = numpy_helper.to_array(tensor).copy()
            shape[list(shape).index(tokens)] = count
            tensor.CopyFrom(numpy_helper.from_array(shape, tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[1].dim_value = count
    target = path.with_name(f".{path.stem}.tokens_{count}.onnx")
    target.write_bytes(model.SerializeToString())
    try:
        return make_session(target, SessionSettings())
    finally:
        target.unlink()
