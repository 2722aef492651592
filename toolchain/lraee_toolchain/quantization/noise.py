"""Measure how INT8 noise grows over the blocks of a tower, and how far it turns the embedding.

The float and the INT8 tower run side by side on the same images, each on its own tokens, so that a block's noise
includes what all blocks before it added. Only sums and one number per image are kept. Measures and the paper's values:
Nam and Choi, *The Rescue Effect*, arXiv 2605.26415; where the paper leaves a definition open, the field says what is
meant here.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.errors import ExportError
from lraee_toolchain.parts.runner import BATCH, Chain

FloatArray = NDArray[np.float32]
Doubles = NDArray[np.float64]

PAPER_NOISE_CURVE = (1, 2, 3, 4, 5, 6, 8, 10, 30, 40, 52, 48)
"""delta_quant / delta_nat of blocks 1 to 12 of ViT-B/32 in percent, as the paper gives it."""
PATHOLOGICAL_SHARE = 0.5
"""A candidate below this share of the candidates' mean INR is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockNoise:
    """What INT8 does to the tokens after one block; means are over images."""

    block: int
    """Counted from 1."""
    delta_nat: float
    """Mean of ``||z_L(FP32) - z_(L-1)(FP32)||``, Frobenius over all tokens and channels; z_0 is the stem's output."""
    delta_quant: float
    """Mean of ``||z_L(INT8) - z_L(FP32)||``, the same norm."""
    cosine: float
    """Mean cosine INT8 to FP32 of all tokens and channels flattened."""
    largest_float: float
    """Largest magnitude of any activation in float."""
    largest_int8: float
    """The same in INT8."""
    signal: float
    """``||E_x[z]||^2`` of the float tower's mean patch token z."""
    noise_variance: float
    """Trace of the covariance over images (divisor n) of eps = z(INT8) - z(FP32), z the mean patch token. Noise that is
    the same for all images does not count; a bias can undo it."""

    @property
    def noise_to_signal(self) -> float:
        """``delta_quant / delta_nat``; infinite if the block changes nothing, 0 without noise."""
        if self.delta_nat == 0:
            return math.inf if self.delta_quant else 0.0
        return self.delta_quant / self.delta_nat

    @property
    def information_to_noise(self) -> float:
        """INR, ``||E_x[z]||^2 / Var_x[eps]``; infinite without noise that differs between images."""
        return math.inf if self.noise_variance == 0 else self.signal / self.noise_variance


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingDrift:
    """How far INT8 turns the embedding at full depth."""

    cosine: float
    """Mean cosine INT8 to FP32."""
    angle_degrees: float
    """Mean angle between INT8 and FP32."""
    flipped: float
    """Share of images whose most similar label changes, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseProfile:
    """What `diagnose` measured."""

    images: int
    """Over which means are taken."""
    blocks: tuple[BlockNoise, ...]
    """Of every block, in order."""
    embedding: EmbeddingDrift
    """At full depth."""


def diagnose(
    chains: tuple[Chain, Chain],
    pixels: NDArray[np.uint8],
    *,
    label_embeddings: FloatArray,
    class_token: bool = True,
    batch: int = BATCH,
    advance: Callable[[int], None] | None = None,
) -> NoiseProfile:
    """Run both towers on the same images and measure the noise.

    Whoever chooses exits by it must not use images of the evaluation split.

    Args:
        chains: FP32 parts, and INT8 parts of the same tower.
        pixels: (images, size, size, 3) uint8.
        label_embeddings: (labels, embed_dim), at least two; rows need not be unit.
        class_token: whether token 0 is a class token.
        batch: images that run together; bounds memory and does not change the result beyond rounding.
        advance: called after each batch with its number of images.

    Raises:
        ExportError: fewer than two images or labels, or the towers differ in depth.
    """
    if len(pixels) < 2:
        raise ExportError(f"a noise profile of {len(pixels)} images has no variance; give at least 2, better 1,000")
    if len(label_embeddings) < 2:
        raise ExportError(f"a margin needs two labels, got {len(label_embeddings)}; give more label embeddings")
    float_chain, quantized_chain = chains
    depth, noisy_depth = len(float_chain.names), len(quantized_chain.names)
    if depth != noisy_depth:
        raise ExportError(f"{depth} float blocks, {noisy_depth} INT8 blocks; give parts of the same model")
    labels = _unit(label_embeddings.astype(np.float64))
    sums = [_BlockSums(class_token) for _ in range(depth + 1)]
    drifts: list[Doubles] = []
    for start in range(0, len(pixels), batch):
        images = np.ascontiguousarray(pixels[start : start + batch])
        before: Doubles | None = None
        pairs = zip(float_chain.after_blocks(images), quantized_chain.after_blocks(images), strict=True)
        for block, (exact, noisy) in zip(sums, pairs, strict=True):
            wide = exact.astype(np.float64)
            block.add(before, wide, noisy.astype(np.float64))
            before = wide
        drifts.append(_drift(float_chain.tail(exact)[0], quantized_chain.tail(noisy)[0], labels))
        if advance is not None:
            advance(len(images))
    cosine, angle, flipped = (float(column.mean()) for column in np.concatenate(drifts).T)
    return NoiseProfile(
        images=len(pixels),
        blocks=tuple(block.result(number) for number, block in enumerate(sums) if number > 0),
        embedding=EmbeddingDrift(cosine=cosine, angle_degrees=angle, flipped=flipped),
    )


class _BlockSums:
    """Sums one block's measures over images; those of the noise are about its first image, against cancellation."""

    def __init__(self, class_token: bool) -> None:
        self.class_token = class_token
        self.count = 0
        self.delta_nat = self.delta_quant = self.cosines = 0.0
        self.largest_float = self.largest_int8 = 0.0
        self.signal = self.origin = self.shifted = np.zeros(())
        self.shifted_squares = 0.0

    def add(self, before: Doubles | None, exact: Doubles, noisy: Doubles) -> None:
        noise = noisy - exact
        squares = np.square(noise).sum(axis=(1, 2))
        if before is not None:
            self.delta_nat += float(np.sqrt(np.square(exact - before).sum(axis=(1, 2))).sum())
        self.delta_quant += float(np.sqrt(squares).sum())
        flat, first = (len(exact), -1), int(self.class_token)
        mean = exact[:, first:].mean(axis=1)
        self.cosines += float(_cosines(exact.reshape(flat), noisy.reshape(flat)).sum())
        self.largest_float = max(self.largest_float, float(np.abs(exact).max()))
        self.largest_int8 = max(self.largest_int8, float(np.abs(noisy).max()))
        self.signal = self.signal + mean.sum(axis=0)
        noise_means: Doubles = noise[:, first:].mean(axis=1)
        if self.count == 0:
            self.origin = noise_means[0]
        self.shifted = self.shifted + (noise_means - self.origin).sum(axis=0)
        self.shifted_squares += float(np.square(noise_means - self.origin).sum())
        self.count += len(exact)

    def result(self, number: int) -> BlockNoise:
        count, shift = self.count, self.shifted / self.count
        return BlockNoise(
            block=number,
            delta_nat=self.delta_nat / count,
            delta_quant=self.delta_quant / count,
            cosine=self.cosines / count,
            largest_float=self.largest_float,
            largest_int8=self.largest_int8,
            signal=float(np.square(self.signal / count).sum()),
            noise_variance=max(self.shifted_squares / count - float(np.square(shift).sum()), 0.0),
        )


def _unit(rows: Doubles) -> Doubles:
    norms: Doubles = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(norms, np.finfo(np.float64).tiny)


def _cosines(a: Doubles, b: Doubles) -> Doubles:
    cosines: Doubles = np.minimum((_unit(a) * _unit(b)).sum(axis=1), 1.0)
    return cosines


def _drift(exact: FloatArray, noisy: FloatArray, labels: Doubles) -> Doubles:
    """Compute cosine, angle in degrees and whether the answer changes for each image, (batch, 3)."""
    a, b = _unit(exact.astype(np.float64)), _unit(noisy.astype(np.float64))
    # of two unit vectors; exact near 0, where arccos is not (Kahan)
    angle = 2 * np.arctan2(np.linalg.norm(a - b, axis=1), np.linalg.norm(a + b, axis=1))
    flipped = (a @ labels.T).argmax(axis=1) != (b @ labels.T).argmax(axis=1)
    return np.stack([_cosines(a, b), np.degrees(angle), flipped.astype(np.float64)], axis=1)


def inr_limit(profile: NoiseProfile, candidates: Sequence[int]) -> float:
    """Compute half the mean INR of the candidates; blocks without noise (infinite INR) are left out of the mean.

    Raises:
        ExportError: a candidate is not a block of the profile.
    """
    depth = len(profile.blocks)
    if wrong := [block for block in candidates if not 1 <= block <= depth]:
        raise ExportError(f"candidate {wrong[0]} is not a block of this profile, wanted 1 to {depth}")
    values = [profile.blocks[block - 1].information_to_noise for block in candidates]
    finite = [value for value in values if math.isfinite(value)]
    return PATHOLOGICAL_SHARE * sum(finite) / len(finite) if finite else 0.0


def pathological(profile: NoiseProfile, candidates: Sequence[int]) -> list[int]:
    """Find candidate exits whose INR is below half the candidates' mean INR, which the paper drops; rising."""
    limit = inr_limit(profile, candidates)
    return [b for b in sorted(set(candidates)) if profile.blocks[b - 1].information_to_noise < limit]


def profile_csv(profile: NoiseProfile) -> str:
    """Write one line for each block: the fields of `BlockNoise`, then both ratios."""
    header = [*BlockNoise.__slots__, "noise_to_signal", "information_to_noise"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([getattr(block, name) for name in header] for block in profile.blocks)
    return text.getvalue()
