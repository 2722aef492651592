"""What exits see of each image, extracted once: heads, gates and thresholds are then cheap and reseedable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.chain import BATCH, Chain

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Of `images` rows, memory-mapped. Block axis: index 0 is block 1."""

    patch_mean: FloatArray
    """(images, blocks, width) float32, mean patch token after each block."""
    class_token: FloatArray
    """(images, blocks, width) float32."""
    variance: FloatArray
    """(images, blocks) float32, spatial activation variance of the patch tokens."""
    embedding: FloatArray
    """(images, embed_dim) float32, full depth, unit rows."""
    probabilities: FloatArray
    """(images, labels) float32, full depth."""

    def rows(self, index: NDArray[np.int64]) -> Features:
        """A copy of some rows."""
        return Features(*(np.ascontiguousarray(getattr(self, name)[index]) for name in _NAMES))


_NAMES = ("patch_mean", "class_token", "variance", "embedding", "probabilities")


def extract_features(
    chain: Chain, pixels: NDArray[np.uint8], folder: Path, *, advance: Callable[[int], None] | None = None
) -> None:
    """Run every image to full depth and write the features as ``.npy`` files.

    Args:
        chain: parts to run.
        pixels: (images, size, size, 3) uint8.
        folder: where the files go.
        advance: called after each batch with its number of images.
    """
    count, depth = len(pixels), len(chain.names)
    maps: dict[str, FloatArray] = {}
    for start in range(0, count, BATCH):
        batch = np.ascontiguousarray(pixels[start : start + BATCH])
        rows = slice(start, start + len(batch))
        for block, tokens in enumerate(chain.after_blocks(batch)):
            if not maps:
                width = tokens.shape[2]
                for name, shape in (
                    ("patch_mean", (depth, width)),
                    ("class_token", (depth, width)),
                    ("variance", (depth,)),
                ):
                    maps[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, *shape))
            if block == 0:
                continue
            patches = tokens[:, 1:]
            mean = patches.mean(axis=1)
            maps["patch_mean"][rows, block - 1] = mean
            maps["class_token"][rows, block - 1] = tokens[:, 0]
            maps["variance"][rows, block - 1] = np.square(patches - mean[:, None]).sum(axis=2).mean(axis=1)
        embedding, probabilities = chain.tail(tokens)
        for name, value in (("embedding", embedding), ("probabilities", probabilities)):
            if name not in maps:
                shape = (count, value.shape[1])
                maps[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, shape)
            maps[name][rows] = value
        if advance is not None:
            advance(len(batch))


def load_features(folder: Path) -> Features:
    """Open what `extract_features` wrote."""
    return Features(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in _NAMES))


def extract_embeddings(
    chain: Chain, pixels: NDArray[np.uint8], folder: Path, *, advance: Callable[[int], None] | None = None
) -> None:
    """Write only ``embedding.npy`` and ``probabilities.npy`` at full depth: the float teacher."""
    embeddings: list[FloatArray] = []
    probabilities: list[FloatArray] = []
    for start in range(0, len(pixels), BATCH):
        batch = np.ascontiguousarray(pixels[start : start + BATCH])
        for tokens in chain.after_blocks(batch):
            last = tokens
        embedding, probability = chain.tail(last)
        embeddings.append(embedding)
        probabilities.append(probability)
        if advance is not None:
            advance(len(batch))
    np.save(folder / "embedding.npy", np.concatenate(embeddings))
    np.save(folder / "probabilities.npy", np.concatenate(probabilities))


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """The float tower's answer for the same images."""

    embedding: FloatArray
    """(images, embed_dim) float32 unit rows."""
    probabilities: FloatArray
    """(images, labels) float32."""

    def rows(self, index: NDArray[np.int64]) -> Teacher:
        """Some rows."""
        return Teacher(self.embedding[index], self.probabilities[index])


def load_teacher(folder: Path) -> Teacher:
    """Open what `extract_embeddings` wrote."""
    return Teacher(np.load(folder / "embedding.npy"), np.load(folder / "probabilities.npy"))
