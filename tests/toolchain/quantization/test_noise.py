"""The noise profile: every measure is what its definition says, however the images are batched."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lraee.bundle.strict_json import read_json, write_json
from lraee.errors import BundleError, ExportError
from lraee_toolchain.quantization.noise import (
    PAPER_NOISE_CURVE,
    BlockNoise,
    NoiseProfile,
    diagnose,
    inr_limit,
    pathological,
    profile_csv,
)

IMAGES, DEPTH, TOKENS, WIDTH, EMBED, LABELS = 23, 4, 5, 6, 3, 4
NOISE = 0.15
"""Enough to change some answers, not all."""


class FakeChain:
    """A tower of random residual blocks; `noise` disturbs each block by another amount for each image."""

    def __init__(self, noise: float, *, depth: int = DEPTH, outlier: float = 1.0) -> None:
        generator = np.random.default_rng(7)
        self.names = [f"block_{number:02}" for number in range(1, depth + 1)]
        self.patches = generator.normal(size=(12, TOKENS * WIDTH)) * outlier
        self.blocks = generator.normal(size=(depth, WIDTH, WIDTH)) / np.sqrt(WIDTH)
        self.disturbance = noise * np.random.default_rng(8).normal(size=(depth + 1, WIDTH, WIDTH))
        self.projection = generator.normal(size=(WIDTH, EMBED))
        self.largest_batch = 0

    def after_blocks(self, pixels: np.ndarray) -> Iterator[np.ndarray]:
        """As the real one: before block 1, then after each, float32."""
        self.largest_batch = max(self.largest_batch, len(pixels))
        tokens = (pixels.reshape(len(pixels), -1) / 255 @ self.patches).reshape(-1, TOKENS, WIDTH)
        tokens = tokens + np.sin(tokens @ self.disturbance[0])
        yield tokens.astype(np.float32)
        for block, disturbance in zip(self.blocks, self.disturbance[1:], strict=True):
            tokens = tokens + np.tanh(tokens @ block) + np.sin(tokens @ disturbance)
            yield tokens.astype(np.float32)

    def tail(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Unit embeddings, and probabilities that nobody reads."""
        embedding = tokens[:, 0].astype(np.float64) @ self.projection
        embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
        return embedding.astype(np.float32), np.zeros((len(tokens), LABELS), np.float32)


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Images of 2 x 2."""
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 2, 2, 3), np.uint8)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    """Directions of the classes, of unequal length."""
    return np.random.default_rng(1).normal(size=(LABELS, EMBED)).astype(np.float32)


def run(exact: Any, noisy: Any, pixels: np.ndarray, labels: np.ndarray, **options: Any) -> NoiseProfile:
    """`diagnose`, with chains that are none."""
    return diagnose((exact, noisy), pixels, label_embeddings=labels, **options)


@pytest.fixture(scope="module")
def profile(pixels: np.ndarray, labels: np.ndarray) -> NoiseProfile:
    """Of a noisy tower, in three batches."""
    return run(FakeChain(0.0), FakeChain(NOISE), pixels, labels, batch=9)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two arrays of any shape."""
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def slow_block(exact: list[np.ndarray], noisy: list[np.ndarray], number: int) -> BlockNoise:
    """The definitions, one image after the other."""
    a, before, b = (x.astype(np.float64) for x in (exact[number], exact[number - 1], noisy[number]))
    images = range(len(a))
    patch = np.array([[t[1:].mean(axis=0) for t in tokens] for tokens in (a, b)])
    noise = patch[1] - patch[0]
    covariance = np.cov(noise.T, bias=True)
    return BlockNoise(
        block=number,
        delta_nat=float(np.mean([np.linalg.norm(a[i] - before[i]) for i in images])),
        delta_quant=float(np.mean([np.linalg.norm(b[i] - a[i]) for i in images])),
        cosine=float(np.mean([cosine(a[i], b[i]) for i in images])),
        largest_float=float(np.abs(a).max()),
        largest_int8=float(np.abs(b).max()),
        signal=float(np.linalg.norm(patch[0].mean(axis=0)) ** 2),
        noise_variance=float(np.trace(covariance)),
    )


def test_every_measure_of_a_block_is_its_definition(profile: NoiseProfile, pixels: np.ndarray) -> None:
    """Both sides add the same doubles in another order."""
    exact, noisy = (list(FakeChain(noise).after_blocks(pixels)) for noise in (0.0, NOISE))
    assert profile.images == IMAGES
    assert len(profile.blocks) == DEPTH
    for number, block in enumerate(profile.blocks, start=1):
        wanted = slow_block(exact, noisy, number)
        assert dataclasses.asdict(block) == pytest.approx(dataclasses.asdict(wanted), rel=1e-9)
        assert block.noise_to_signal == pytest.approx(wanted.delta_quant / wanted.delta_nat)
        assert block.information_to_noise == pytest.approx(wanted.signal / wanted.noise_variance)


def test_the_drift_of_the_embedding_is_its_definition(
    profile: NoiseProfile, pixels: np.ndarray, labels: np.ndarray
) -> None:
    """One image after the other, with arccos."""
    a, b = (chain.tail(list(chain.after_blocks(pixels))[-1])[0] for chain in (FakeChain(0.0), FakeChain(NOISE)))
    cosines = np.array([cosine(x, y) for x, y in zip(a, b, strict=True)])
    flips = 0
    for x, y in zip(a, b, strict=True):
        to_labels = [np.array([cosine(v, label) for label in labels]) for v in (x, y)]
        flips += int(to_labels[1].argmax()) != int(to_labels[0].argmax())
    assert dataclasses.asdict(profile.embedding) == pytest.approx(
        {
            "cosine": cosines.mean(),
            "angle_degrees": np.degrees(np.arccos(cosines)).mean(),
            "flipped": flips / IMAGES,
        },
        rel=1e-6,
        abs=1e-9,
    )
    assert 0 < profile.embedding.flipped < 1, "the case shows nothing where no answer changes"


@settings(deadline=None, max_examples=15)
@given(batch=st.integers(1, IMAGES + 3))
def test_batches_do_not_change_the_result(batch: int) -> None:
    """All at once, one by one, and with a rest."""
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 2, 2, 3), np.uint8)
    labels = np.random.default_rng(1).normal(size=(LABELS, EMBED)).astype(np.float32)
    done: list[int] = []
    chain = FakeChain(NOISE)
    found = run(FakeChain(0.0), chain, pixels, labels, batch=batch, advance=done.append)
    whole = run(FakeChain(0.0), FakeChain(NOISE), pixels, labels, batch=IMAGES)
    assert chain.largest_batch <= batch
    assert sum(done) == IMAGES
    for one, other in zip(found.blocks, whole.blocks, strict=True):
        # float32 matrix products may round otherwise in another batch
        assert dataclasses.asdict(one) == pytest.approx(dataclasses.asdict(other), rel=1e-4)
    assert dataclasses.asdict(found.embedding) == pytest.approx(dataclasses.asdict(whole.embedding), rel=1e-4, abs=1e-6)


def test_equal_towers_have_no_noise(pixels: np.ndarray, labels: np.ndarray) -> None:
    """Exactly none, and nothing is pathological."""
    found = run(FakeChain(0.0), FakeChain(0.0), pixels, labels, batch=4)
    for block in found.blocks:
        assert (block.delta_quant, block.noise_variance) == (0, 0)
        assert block.noise_to_signal == 0
        assert block.information_to_noise == math.inf
        assert block.cosine == pytest.approx(1, abs=1e-12)
    drift = found.embedding
    assert (drift.angle_degrees, drift.flipped) == (0, 0)
    assert pathological(found, [1, 2, 3]) == []


def test_small_noise_on_large_activations_is_not_lost_to_rounding(pixels: np.ndarray, labels: np.ndarray) -> None:
    """A shift of 50 for all images does not hide noise of 0.001 on top of large activations."""

    class Shifted(FakeChain):
        def after_blocks(self, pixels: np.ndarray) -> Iterator[np.ndarray]:
            seeds = pixels.astype(int).reshape(len(pixels), -1).sum(axis=1)
            for tokens in super().after_blocks(pixels):
                wobble = np.array([np.random.default_rng(s).normal(size=WIDTH) for s in seeds])[:, None] * 1e-3
                yield tokens.astype(np.float64) + 50.0 + wobble

    found = run(FakeChain(0.0, outlier=30.0), Shifted(0.0, outlier=30.0), pixels, labels, batch=5)
    for block in found.blocks:
        assert block.noise_variance == pytest.approx(WIDTH * 1e-6, rel=0.3)


def made_profile(profile: NoiseProfile, ratios: list[float]) -> NoiseProfile:
    """Blocks with given INR."""
    (first, *_) = profile.blocks
    blocks = tuple(
        dataclasses.replace(first, block=number, signal=ratio, noise_variance=1.0)
        for number, ratio in enumerate(ratios, start=1)
    )
    return dataclasses.replace(profile, blocks=blocks)


def test_a_candidate_below_half_the_candidates_mean_is_pathological(profile: NoiseProfile) -> None:
    """As the paper drops block 9; blocks that are no candidates do not count."""
    made = made_profile(profile, [1000.0] * 7 + [10.0, 3.0, 9.0, 8.0, 0.1])
    assert inr_limit(made, (8, 9, 10, 11)) == pytest.approx(3.75)
    assert pathological(made, (8, 9, 10, 11)) == [9]
    assert pathological(made, [11, 9, 9, 10, 8]) == [9]
    assert pathological(made, [9]) == []
    assert pathological(made, []) == []
    assert pathological(made_profile(profile, [4.0, 2.0]), [1, 2]) == [], "1.5 is the limit, 2 is above"


def test_a_block_without_noise_does_not_make_the_others_pathological(profile: NoiseProfile) -> None:
    """Its INR is infinite and left out of the mean."""
    made = made_profile(profile, [5.0, 4.0, 1.0])
    silent = dataclasses.replace(made.blocks[0], noise_variance=0.0)
    made = dataclasses.replace(made, blocks=(silent, *made.blocks[1:]))
    assert pathological(made, [1, 2, 3]) == [3]


@pytest.mark.parametrize("wrong", [0, 5, -1])
def test_a_candidate_that_is_no_block_is_refused(profile: NoiseProfile, wrong: int) -> None:
    """Not wrapped round to another block."""
    with pytest.raises(ExportError, match=f"candidate {wrong} is not a block of this profile, wanted 1 to 4"):
        pathological(profile, [2, wrong])


def test_a_profile_comes_back_from_its_file(profile: NoiseProfile, tmp_path: Path) -> None:
    """Bit for bit, also without noise, where ratios are infinite and therefore not in the file."""
    silent = made_profile(profile, [0.0])
    for number, one in enumerate((profile, silent)):
        path = tmp_path / f"{number}.json"
        write_json(one, path)
        assert read_json(NoiseProfile, path) == one
    damaged = json.loads((tmp_path / "0.json").read_text())
    del damaged["blocks"][1]["signal"]
    (tmp_path / "0.json").write_text(json.dumps(damaged))
    with pytest.raises(BundleError, match="signal"):
        read_json(NoiseProfile, tmp_path / "0.json")


def test_the_table_has_a_line_for_each_block_with_both_ratios(profile: NoiseProfile) -> None:
    """Numbers in full, so that a spreadsheet can go on from them."""
    rows = list(csv.DictReader(profile_csv(profile).splitlines()))
    assert [int(row["block"]) for row in rows] == [1, 2, 3, 4]
    for row, block in zip(rows, profile.blocks, strict=True):
        assert float(row["signal"]) == block.signal
        assert float(row["noise_to_signal"]) == block.noise_to_signal
        assert float(row["information_to_noise"]) == block.information_to_noise


def test_what_cannot_be_measured_is_refused(pixels: np.ndarray, labels: np.ndarray) -> None:
    """One image, one label, or towers of different depth."""
    chain = FakeChain(0.0)
    with pytest.raises(ExportError, match="1 images has no variance"):
        run(chain, chain, pixels[:1], labels)
    with pytest.raises(ExportError, match="two labels, got 1"):
        run(chain, chain, pixels, labels[:1])
    with pytest.raises(ExportError, match="4 float blocks, 3 INT8 blocks"):
        run(chain, FakeChain(0.0, depth=3), pixels, labels)


def test_the_papers_curve_has_a_value_for_each_block_of_vit_b_32() -> None:
    """Its sharp rise is at block 9."""
    assert len(PAPER_NOISE_CURVE) == 12
    steps = np.diff(PAPER_NOISE_CURVE)
    assert steps.argmax() + 2 == 9
