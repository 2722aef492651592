"""Every source gives the same tokens for the same rows, in the order asked for."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lraee_toolchain.early_exit.features import Features, extract_features, load_features
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

    def after_blocks(self, pixels: np.ndarray) -> Any:
        """Tokens before block 1, then after each."""
        tokens = self.stem(pixels)
        yield tokens
        for name in self.names:
            tokens = self.run_block(name, tokens)
            yield tokens

    def tail(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An embedding and two probabilities."""
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
    assert all(tokens.dtype == np.float16 for tokens in found)
    return np.stack(found)


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
