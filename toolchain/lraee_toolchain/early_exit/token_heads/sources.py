"""Gives the tokens of images after some blocks: from shards on disk, or straight from the running tower.

Tokens are given normed, as every head that reads them wants them first, and rounded to FP16, so that a head learns the
same from both sources. Shards take 2 bytes for each channel of each token, image and block: 4 GB for 10,000 images of
65 tokens of width 384 and 8 blocks. The tower needs no disk, but runs again in every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lraee_exporters.graphs.pooling.token_pool import TOKEN_EPSILON
from lraee_toolchain.parts.runner import BATCH, Chain

FloatArray = NDArray[np.float32]
HalfArray = NDArray[np.float16]
Rows = NDArray[np.int64]


class TokenSource(Protocol):
    """Gives tokens of any images, in any order."""

    def __len__(self) -> int:
        """Count the images."""
        ...

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfArray]:
        """Yield the normed tokens of some images after each of `blocks`, in rising order of the blocks.

        Args:
            rows: (images,) int64, in any order.
            blocks: counted from 1, rising.

        Yields:
            (images, tokens, width) float16.
        """
        ...


def normed_tokens(tokens: FloatArray) -> HalfArray:
    """Norm each token as the exit's graph does, and round to FP16."""
    values = torch.from_numpy(tokens)
    return np.asarray(F.layer_norm(values, values.shape[-1:], eps=TOKEN_EPSILON).half().numpy())


def shard_name(block: int) -> str:
    """Name the array with the tokens after a block."""
    return f"tokens_{block:02d}"


def shard_bytes(images: int, blocks: int, *, tokens: int, width: int) -> int:
    """Count the bytes on disk of all shards."""
    return 2 * images * blocks * tokens * width


class DiskTokens:
    """Reads shards, ``tokens_NN.npy`` of (images, tokens, width) float16, memory-mapped."""

    def __init__(self, folder: Path) -> None:
        """Open the shards of a folder."""
        self._shards = {
            int(path.stem.removeprefix("tokens_")): np.load(path, mmap_mode="r") for path in folder.glob("tokens_*.npy")
        }

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks that have a shard."""
        return tuple(sorted(self._shards))

    def __len__(self) -> int:
        """Count the images."""
        return len(next(iter(self._shards.values())))

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfArray]:
        """Read the rows of each shard; see `TokenSource.tokens`."""
        for block in blocks:
            yield self._shards[block][rows]


class TowerTokens:
    """Runs the tower for the images asked for, as far as the deepest block."""

    def __init__(self, chain: Chain, pixels: NDArray[np.uint8]) -> None:
        """Name the tower and its images.

        Args:
            chain: parts to run.
            pixels: (images, size, size, 3) uint8.
        """
        self._chain, self._pixels = chain, pixels

    def __len__(self) -> int:
        """Count the images."""
        return len(self._pixels)

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfArray]:
        """Run the tower block by block; see `TokenSource.tokens`."""
        starts = range(0, len(rows), BATCH)
        x = np.concatenate([self._chain.stem(self._pixels[rows[start : start + BATCH]]) for start in starts])
        for number, name in enumerate(self._chain.names[: max(blocks)], start=1):
            x = self._chain.run_block(name, x)
            if number in blocks:
                yield normed_tokens(x)


class SomeRows:
    """Some images of another source."""

    def __init__(self, source: TokenSource, index: Rows) -> None:
        """Select images by their index."""
        self._source, self._index = source, index

    def __len__(self) -> int:
        """Count the images."""
        return len(self._index)

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfArray]:
        """See `TokenSource.tokens`."""
        return self._source.tokens(self._index[rows], blocks)


class Joined:
    """The images of two sources, one after the other."""

    def __init__(self, first: TokenSource, second: TokenSource) -> None:
        """Name the sources."""
        self._first, self._second = first, second

    def __len__(self) -> int:
        """Count the images."""
        return len(self._first) + len(self._second)

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfArray]:
        """Ask each source for its rows; see `TokenSource.tokens`."""
        count = len(self._first)
        early = rows < count
        streams = [self._first.tokens(rows[early], blocks)] if early.any() else []
        streams += [self._second.tokens(rows[~early] - count, blocks)] if not early.all() else []
        if len(streams) == 1:
            yield from streams[0]
            return
        for of_first, of_second in zip(*streams, strict=True):
            tokens = np.empty((len(rows), *of_first.shape[1:]), np.float16)
            tokens[early], tokens[~early] = of_first, of_second
            yield tokens
