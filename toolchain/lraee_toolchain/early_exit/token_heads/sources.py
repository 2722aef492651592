"""Gives the tokens of images after some blocks: from shards on disk, or straight from the running tower.

Tokens are given normed, as every head that reads them wants them first, and rounded to FP16, so that a head learns the
same from both sources. Shards take 2 bytes for each channel of each token, image and block: 4 GB for 10,000 images of
65 tokens of width 384 and 8 blocks. The tower needs no disk, but runs again in every epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from lraee.engine.sized_tokens import SizedTokens, Tokens
from lraee_exporters.graphs.pooling.token_pool import TOKEN_EPSILON
from lraee_toolchain.parts.runner import BATCH, Chain

FloatArray = NDArray[np.float32]
HalfArray = NDArray[np.float16]
Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class HalfTokens:
    """Normed tokens of some images after one block."""

    values: HalfArray
    """(images, tokens, width) float16."""
    sizes: HalfArray | None = None
    """(images, tokens) float16, how many tokens each stands for; 0 where there is none, since images of several
    schedules stand side by side; None where each stands for itself."""

    def floats(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Give both as float32 tensors."""
        sizes = None if self.sizes is None else torch.from_numpy(self.sizes).float()
        return torch.from_numpy(self.values).float(), sizes


class TokenSource(Protocol):
    """Gives tokens of any images, in any order."""

    def __len__(self) -> int:
        """Count the images."""
        ...

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfTokens]:
        """Yield the normed tokens of some images after each of `blocks`, in rising order of the blocks.

        Args:
            rows: (images,) int64, in any order.
            blocks: counted from 1, rising.

        Yields:
            The tokens of these images.
        """
        ...


def normed_tokens(tokens: FloatArray) -> HalfArray:
    """Norm each token as the exit's graph does, and round to FP16."""
    values = torch.from_numpy(tokens)
    return np.asarray(F.layer_norm(values, values.shape[-1:], eps=TOKEN_EPSILON).half().numpy())


def shard_name(block: int) -> str:
    """Name the array with the tokens after a block."""
    return f"tokens_{block:02d}"


def sizes_name(block: int) -> str:
    """Name the array with how many tokens each token after a block stands for."""
    return f"sizes_{block:02d}"


def shard_bytes(images: int, blocks: int, *, tokens: int, width: int) -> int:
    """Count the bytes on disk of all shards."""
    return 2 * images * blocks * tokens * width


class DiskTokens:
    """Reads shards, memory-mapped: ``tokens_NN.npy`` of (images, tokens, width), ``sizes_NN.npy`` of (images, tokens),
    float16.
    """

    def __init__(self, folder: Path) -> None:
        """Open the shards of a folder."""
        self._shards, self._sizes = (
            {int(path.stem.removeprefix(name)): np.load(path, mmap_mode="r") for path in folder.glob(f"{name}*.npy")}
            for name in ("tokens_", "sizes_")
        )

    @property
    def blocks(self) -> tuple[int, ...]:
        """Blocks that have a shard."""
        return tuple(sorted(self._shards))

    def __len__(self) -> int:
        """Count the images."""
        return len(next(iter(self._shards.values())))

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfTokens]:
        """Read the rows of each shard; see `TokenSource.tokens`."""
        for block in blocks:
            sizes = self._sizes[block][rows] if block in self._sizes else None
            yield HalfTokens(self._shards[block][rows], sizes)


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

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfTokens]:
        """Run the tower block by block; see `TokenSource.tokens`."""
        found: dict[int, list[HalfTokens]] = {block: [] for block in blocks}
        for start in range(0, len(rows), BATCH):
            batch = np.ascontiguousarray(self._pixels[rows[start : start + BATCH]])
            for number, after in zip(range(max(blocks) + 1), self._chain.sized_after_blocks(batch), strict=False):
                if number in found:
                    found[number].append(half_tokens(after))
        for block in blocks:
            yield _stacked(found.pop(block))


class SomeRows:
    """Some images of another source."""

    def __init__(self, source: TokenSource, index: Rows) -> None:
        """Select images by their index."""
        self._source, self._index = source, index

    def __len__(self) -> int:
        """Count the images."""
        return len(self._index)

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfTokens]:
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

    def tokens(self, rows: Rows, blocks: Sequence[int]) -> Iterator[HalfTokens]:
        """Ask each source for its rows; see `TokenSource.tokens`."""
        count = len(self._first)
        early = rows < count
        streams = [self._first.tokens(rows[early], blocks)] if early.any() else []
        streams += [self._second.tokens(rows[~early] - count, blocks)] if not early.all() else []
        if len(streams) == 1:
            yield from streams[0]
            return
        for of_first, of_second in zip(*streams, strict=True):
            yield _mixed(early, of_first, of_second)


def half_tokens(after: Tokens) -> HalfTokens:
    """Norm and round what a block gives."""
    if isinstance(after, SizedTokens):
        return HalfTokens(normed_tokens(after.values), after.sizes[..., 0].astype(np.float16))
    return HalfTokens(normed_tokens(after))


def _stacked(batches: Sequence[HalfTokens]) -> HalfTokens:
    """Put the batches of one source, which has as many tokens for every image, one after the other."""
    sizes = [one.sizes for one in batches if one.sizes is not None]
    return HalfTokens(np.concatenate([one.values for one in batches]), np.concatenate(sizes) if sizes else None)


def _mixed(early: NDArray[np.bool_], first: HalfTokens, second: HalfTokens) -> HalfTokens:
    """Put the images of two sources into their order; those with fewer tokens get empty ones."""
    count = max(first.values.shape[1], second.values.shape[1])
    values = np.zeros((len(early), count, first.values.shape[2]), np.float16)
    sizes = np.zeros((len(early), count), np.float16)
    for rows, source in ((early, first), (~early, second)):
        there = source.values.shape[1]
        values[rows, :there] = source.values
        sizes[rows, :there] = 1 if source.sizes is None else source.sizes
    plain = first.sizes is None and second.sizes is None and first.values.shape[1] == second.values.shape[1]
    return HalfTokens(values, None if plain else sizes)
