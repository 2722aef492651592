"""Every source gives the same tokens for the same rows, in the order asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lraee.engine.sized_tokens import SizedTokens
from lraee_toolchain.early_exit.features import Features, extract_features, load_features
from lraee_toolchain.early_exit.token_heads.reading import read_tokens
from lraee_toolchain.early_exit.token_heads.sources import (
    DiskTokens,
    Joined,
    SomeRows,
    TokenSource,
    TowerTokens,
    normed_tokens,
    shard_bytes,
)
from lraee_toolchain.parts.runner import BATCH

IMAGES, TOKENS, WIDTH, DEPTH = 2 * BATCH + 3, 5, 8, 4


class FakeChain:
    """A tower whose blocks multiply and mix channels; counts the blocks that ran."""

    names = tuple(f"block_{number:02d}" for number in range(1, DEPTH + 1))

    def __init__(self) -> None:
        self.ran: list[str] = []

    def stem(self, pixels: np.ndarray) -> np.ndarray:
        """Tokens of up to `BATCH` images."""
        assert len(pixels) <= BATCH
        return np.asarray(pixels.reshape(len(pixels), TOKENS, WIDTH).astype(np.float32))

    def run_block(self, name: str, tokens: np.ndarray) -> np.ndarray:
        """Each block differs."""
        self.ran.append(name)
        return np.asarray(tokens * np.float32(1.5) + np.roll(tokens, int(name[-2:]), axis=2))

    def sized_after_blocks(self, pixels: np.ndarray) -> Any:
        """Tokens before block 1, then after each."""
        tokens = self.stem(pixels)
        yield tokens
        for name in self.names:
            tokens = self.run_block(name, tokens)
            yield tokens

    def tail(self, tokens: Any) -> tuple[np.ndarray, np.ndarray]:
        """An embedding and two probabilities."""
        tokens = tokens.values if isinstance(tokens, SizedTokens) else tokens
        return tokens[:, 0], tokens[:, 0, :2]


@pytest.fixture
def pixels() -> np.ndarray:
    """uint8, one value for each channel of each token."""
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 1, TOKENS * WIDTH, 1), np.uint8)


@pytest.fixture
def shards(pixels: np.ndarray, tmp_path: Path) -> Features:
    """Features with tokens after blocks 2 and 4."""
    extract_features(FakeChain(), pixels, tmp_path, class_token=True, shards=(2, 4))  # type: ignore[arg-type]
    return load_features(tmp_path)


def read(source: TokenSource, rows: list[int], blocks: tuple[int, ...] = (2, 4)) -> np.ndarray:
    """(blocks, images, tokens, width) float16."""
    found = list(source.tokens(np.array(rows), blocks))
    assert all(tokens.values.dtype == np.float16 and tokens.sizes is None for tokens in found)
    return np.stack([tokens.values for tokens in found])


def test_shards_and_the_running_tower_give_equal_tokens(pixels: np.ndarray, shards: Features) -> None:
    """To the bit, more images than the tower runs at once, in any order; the tower stops at the deepest block."""
    chain = FakeChain()
    running = TowerTokens(chain, pixels)  # type: ignore[arg-type]
    rows = np.random.default_rng(1).permutation(IMAGES).tolist()
    assert isinstance(shards.tokens, DiskTokens)
    assert shards.tokens.blocks == (2, 4)
    assert len(shards.tokens) == len(running) == IMAGES
    np.testing.assert_array_equal(read(shards.tokens, rows), read(running, rows))
    chain.ran.clear()
    np.testing.assert_array_equal(read(running, [3, 1], (2,)), read(shards.tokens, [3, 1], (2,)))
    assert chain.ran == ["block_01", "block_02"]


def test_tokens_are_normed_before_they_are_rounded(pixels: np.ndarray, shards: Features) -> None:
    """Channels of size 10^6, which FP16 has not, lose nothing."""
    tokens = np.random.default_rng(2).normal(size=(3, TOKENS, WIDTH)).astype(np.float32)
    tokens[..., 0] += 1e6
    exact = tokens.astype(np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / np.sqrt(exact.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(normed_tokens(tokens).astype(np.float64), exact, atol=2e-3)
    assert shards.tokens is not None
    found = read(shards.tokens, list(range(IMAGES))).astype(np.float64)
    np.testing.assert_allclose(found.mean(-1), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(-1), 1, atol=1e-2)


def test_features_without_shards_have_no_tokens(pixels: np.ndarray, tmp_path: Path) -> None:
    """They are written only where they are asked for, and take what was said."""
    for name, blocks in (("without", ()), ("with", (1, 3))):
        (tmp_path / name).mkdir()
        extract_features(FakeChain(), pixels, tmp_path / name, shards=blocks)  # type: ignore[arg-type]
    assert load_features(tmp_path / "without").tokens is None
    written = [path.stat().st_size for path in (tmp_path / "with").glob("tokens_*.npy")]
    said = shard_bytes(IMAGES, 2, tokens=TOKENS, width=WIDTH)
    assert said <= sum(written) < said + 1000


def test_some_rows_of_joined_splits_are_those_of_their_sources(pixels: np.ndarray, shards: Features) -> None:
    """As `Setting.divide` takes them: features and tokens of a row belong to one image."""
    whole = read(TowerTokens(FakeChain(), pixels), list(range(IMAGES)))  # type: ignore[arg-type]
    first, second = shards.rows(np.arange(10)), shards.rows(np.arange(10, IMAGES))
    pool = first.joined(second)
    index = np.array([12, 3, 9, 10, 30])
    some = pool.rows(index)
    assert isinstance(pool.tokens, Joined)
    assert isinstance(some.tokens, SomeRows)
    assert (len(pool.tokens), len(some.tokens)) == (IMAGES, 5)
    np.testing.assert_array_equal(read(pool.tokens, [0, 9]), whole[:, [0, 9]])
    np.testing.assert_array_equal(read(pool.tokens, [11, 34]), whole[:, [11, 34]])
    np.testing.assert_array_equal(read(some.tokens, [4, 0, 1]), whole[:, [30, 12, 3]])
    np.testing.assert_array_equal(some.variance, np.asarray(shards.variance)[index])


class MergingChain(FakeChain):
    """The same tower, whose blocks drop the last of their tokens into the one before."""

    def sized_after_blocks(self, pixels: np.ndarray) -> Any:
        """Tokens before block 1, then after each with their sizes."""
        tokens = self.stem(pixels)
        sizes = np.ones((*tokens.shape[:2], 1), np.float32)
        yield tokens
        for name in self.names:
            tokens = self.run_block(name, tokens)[:, :-1]
            sizes = np.concatenate([sizes[:, :-2], sizes[:, -2:].sum(axis=1, keepdims=True)], axis=1)
            yield SizedTokens(tokens, sizes)


def test_shards_of_merged_tokens_keep_their_sizes(pixels: np.ndarray, tmp_path: Path) -> None:
    """From disk and from the running tower alike; means and variances count a token as often as it stands for."""
    extract_features(MergingChain(), pixels, tmp_path, shards=(2,))  # type: ignore[arg-type]
    features, running = load_features(tmp_path), TowerTokens(MergingChain(), pixels)  # type: ignore[arg-type]
    assert features.tokens is not None
    (kept,), (run,) = features.tokens.tokens(np.arange(5), (2,)), running.tokens(np.arange(5), (2,))
    assert kept.sizes is not None
    assert run.sizes is not None
    np.testing.assert_array_equal(kept.values, run.values)
    np.testing.assert_array_equal(kept.sizes, run.sizes)
    np.testing.assert_array_equal(kept.sizes[0], [1] * (TOKENS - 3) + [3])
    _, _, after, *_ = MergingChain().sized_after_blocks(pixels[:3])
    repeated = np.concatenate([after.values[:, 1:], after.values[:, -1:], after.values[:, -1:]], axis=1)
    np.testing.assert_allclose(features.patch_mean[:3, 1], repeated.mean(axis=1), rtol=1e-5)
    spread = np.square(repeated - repeated.mean(axis=1, keepdims=True)).sum(axis=2).mean(axis=1)
    np.testing.assert_allclose(features.variance[:3, 1], spread, rtol=1e-5)


def test_images_of_two_schedules_stand_side_by_side(pixels: np.ndarray, tmp_path: Path) -> None:
    """Those with fewer tokens get empty ones, which stand for nothing."""
    sources = [TowerTokens(chain, pixels) for chain in (FakeChain(), MergingChain())]  # type: ignore[arg-type]
    (mixed,) = Joined(*sources).tokens(np.array([IMAGES + 1, 2]), (2,))
    (plain,), (merged,) = sources[0].tokens(np.array([2]), (2,)), sources[1].tokens(np.array([1]), (2,))
    assert mixed.sizes is not None
    np.testing.assert_array_equal(mixed.values[1], plain.values[0])
    np.testing.assert_array_equal(mixed.values[0, : TOKENS - 2], merged.values[0])
    np.testing.assert_array_equal(mixed.sizes, [[1] * (TOKENS - 3) + [3, 0, 0], [1] * TOKENS])


def test_heads_read_a_token_as_often_as_it_stands_for() -> None:
    """As if it were there as often; one that stands for nothing as if it were not."""
    random = torch.Generator().manual_seed(0)
    tokens, queries = torch.randn(3, 6, 8, generator=random), torch.randn(8, 2, generator=random)
    for class_token in (True, False):
        sizes = torch.tensor([1.0, 1, 3, 1, 0, 1]).expand(3, -1)
        repeated = torch.cat([tokens[:, :4], tokens[:, 2:3], tokens[:, 2:3], tokens[:, 5:]], dim=1)
        got = read_tokens(tokens, [queries], class_token=class_token, sizes=sizes)
        torch.testing.assert_close(got, read_tokens(repeated, [queries], class_token=class_token))
