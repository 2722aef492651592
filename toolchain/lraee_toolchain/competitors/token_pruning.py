"""Token pruning in the manner of AdaViT and EViT, on the frozen tower, with what makes it fair.

Every image runs through the whole depth, but the patches that matter least are dropped on the way. It saves FLOPs in
width where early exit saves them in depth, so LRA-EE is compared with it at matched FLOPs. Nothing is trained: after
each of `PRUNED_AFTER` a share of the patches is kept. What is dropped is out of the attention altogether, whose weights
add up to 1 over what is left. `SCORES` tells what patches are judged by; the comparison shows the best of them, chosen
on the evaluation images themselves, in favour of pruning. AdaViT's learned masks (Meng et al., arXiv 2111.15668) choose
better and need training through the tower; fusing what is dropped into one token is EViT's (Liang et al., arXiv
2202.07800).
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from lraee.ort.sessions import SessionSettings, make_session
from lraee_exporters.graphs.block import BlockForm, build_block
from lraee_exporters.tower import Tower
from lraee_toolchain.parts.runner import BATCH, Chain
from lraee_toolchain.parts.saved_weights import load_weights
from lraee_toolchain.parts.schedule_search import block_flops, other_flops

FloatArray = NDArray[np.float32]

PRUNED_AFTER = (3 / 12, 6 / 12, 9 / 12)
"""Depths after which patches are dropped, as in EViT."""

Score: TypeAlias = Literal["cosine", "attention", "attention, rest fused"]
"""How patches are judged: by the cosine of their token to the class token, by the attention that the class token pays
them in the block just run (all heads), or so with what is dropped fused into one token, weighted by it."""

SCORES: tuple[Score, ...] = get_args(Score)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """What the tower does at one keep rate."""

    score: Score
    saved: float
    """Share of full-depth FLOPs."""
    good: NDArray[np.float64]
    """(images,) 1 where the answer is right."""


def token_counts(tower: Tower, keep: float, score: Score) -> list[int]:
    """Count the tokens that each block computes, class token and fused one included.

    Args:
        tower: gives tokens and depth.
        keep: share of the patches kept each time.
        score: says whether what is dropped becomes one token more.
    """
    counts, patches = [], tower.patches
    stops = {round(tower.depth * share) for share in PRUNED_AFTER}
    for block in range(1, tower.depth + 1):
        counts.append(patches + 1)
        if block in stops:
            kept = max(1, int(np.ceil(keep * patches)))
            patches = kept + 1 if score == "attention, rest fused" and kept + 1 < patches else kept
    return counts


def flops_saved(tower: Tower, counts: list[int]) -> float:
    """Compute the share of full-depth FLOPs saved; the scores' own are not counted, in favour of pruning."""
    plain = sum(block_flops(tower, number, tower.tokens) for number in range(1, tower.depth + 1))
    pruned = sum(block_flops(tower, number, count) for number, count in enumerate(counts, start=1))
    return (plain - pruned) / (plain + other_flops(tower))


def keep_for(tower: Tower, saved: float, score: Score) -> float:
    """Find the largest keep rate that saves at least this share of FLOPs, by bisection, or the least there is."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        if flops_saved(tower, token_counts(tower, middle, score)) >= saved:
            low = middle
        else:
            high = middle
    return low


def measure_pruned(
    chain: Chain,
    parts: Path,
    tower: Tower,
    images: tuple[NDArray[np.uint8], NDArray[np.int64]],
    *,
    saved: float,
    score: Score,
) -> Pruned:
    """Run the tower with patches dropped.

    Args:
        chain: stem and tail of the tower.
        parts: its folder; blocks for fewer tokens are built from the weights there.
        tower: gives the shapes.
        images: pixels (images, size, size, 3) uint8, and classes (images,) int64.
        saved: share of full-depth FLOPs to save at least, if that can be.
        score: what patches are judged by.
    """
    pixels, classes = images
    counts = token_counts(tower, keep_for(tower, saved, score), score)
    with tempfile.TemporaryDirectory(dir=parts.parent) as name:
        sessions = _sessions(tower, parts, counts, Path(name))
        good: list[NDArray[np.bool_]] = []
        for start in range(0, len(pixels), BATCH):
            tokens = chain.stem(np.ascontiguousarray(pixels[start : start + BATCH]))
            for session, count in zip(sessions, [*counts[1:], None], strict=True):
                if count is None or count == tokens.shape[1]:
                    tokens = session.run(["tokens_out"], {"tokens": tokens})[0]
                else:
                    tokens, attention = session.run(["tokens_out", "class_attention"], {"tokens": tokens})
                    tokens = prune(tokens, attention, count, score)
            good.append(chain.tail(tokens)[1].argmax(axis=1) == classes[start : start + BATCH])
    return Pruned(score=score, saved=flops_saved(tower, counts), good=np.concatenate(good).astype(np.float64))


def _sessions(tower: Tower, parts: Path, counts: list[int], folder: Path) -> list[ort.InferenceSession]:
    """Build and open the blocks for these numbers of tokens; the last gives the class token alone."""
    sessions = []
    for number, (weights, count) in enumerate(zip(load_weights(parts).blocks, counts, strict=True), start=1):
        last = number == tower.depth
        form = BlockForm(token_count=count, class_only=last)
        graph, file = build_block(weights, form, number=number, class_attention=not last)
        file.save(folder)
        sessions.append(make_session(graph.save(folder), SessionSettings()))
    return sessions


def prune(tokens: FloatArray, attention: FloatArray, count: int, score: Score) -> FloatArray:
    """Keep the class token and the best patches, in their order; what is fused comes last.

    Args:
        tokens: (images, tokens, width), the class token first.
        attention: (images, tokens), what the class token paid to each.
        count: tokens to keep, class token and fused one included.
        score: what patches are judged by.
    """
    patches, first = tokens[:, 1:], tokens[:, :1]
    worth = attention[:, 1:]
    if score == "cosine":
        worth = (patches * first).sum(axis=2) / np.maximum(np.linalg.norm(patches, axis=2), 1e-12)
    fuses = score == "attention, rest fused"
    order = np.argsort(-worth, axis=1, kind="stable")
    kept, rest = np.sort(order[:, : count - 1 - fuses], axis=1), order[:, count - 1 - fuses :]
    found = [first, np.take_along_axis(patches, kept[:, :, None], axis=1)]
    if fuses:
        weights = np.take_along_axis(worth, rest, axis=1)[:, :, None]
        dropped = np.take_along_axis(patches, rest[:, :, None], axis=1)
        found.append((dropped * weights).sum(axis=1, keepdims=True) / weights.sum(axis=1, keepdims=True))
    return np.ascontiguousarray(np.concatenate(found, axis=1))
