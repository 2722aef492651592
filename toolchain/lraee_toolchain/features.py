"""What exits see of each image, extracted once: heads, gates and thresholds are then cheap and reseedable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.chain import BATCH, Chain

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Of `images` rows, memory-mapped. Block axis: index 0 is block 1."""

    patch_mean: FloatArray
    """(images, blocks, width) float32, mean patch token after each block."""
    class_token: FloatArray | None
    """(images, blocks, width) float32, or None for a tower without a class token."""
    variance: FloatArray
    """(images, blocks) float32, spatial activation variance of the patch tokens."""
    embedding: FloatArray
    """(images, embed_dim) float32, full depth, unit rows."""
    probabilities: FloatArray
    """(images, labels) float32, full depth."""

    def rows(self, index: NDArray[np.int64]) -> Features:
        """A copy of some rows."""
        return Features(*(_rows(getattr(self, name), index) for name in _NAMES))


def _rows(values: FloatArray | None, index: NDArray[np.int64]) -> Any:
    return None if values is None else np.ascontiguousarray(values[index])


_NAMES = ("patch_mean", "class_token", "variance", "embedding", "probabilities")


def extract_features(
    chain: Chain,
    pixels: NDArray[np.uint8],
    folder: Path,
    *,
    class_token: bool = True,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Run every image to full depth and write the features as ``.npy`` files.

    Args:
        chain: parts to run.
        pixels: (images, size, size, 3) uint8.
        folder: where the files go.
        class_token: whether token 0 is a class token.
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
                shapes: dict[str, tuple[int, ...]] = {"patch_mean": (depth, width), "variance": (depth,)}
                shapes |= {"class_token": (depth, width)} if class_token else {}
                for name, shape in shapes.items():
                    maps[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float32, (count, *shape))
            if block == 0:
                continue
            patches = tokens[:, int(class_token) :]
            mean = patches.mean(axis=1)
            maps["patch_mean"][rows, block - 1] = mean
            if class_token:
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
    return Features(*(_open(folder / f"{name}.npy") for name in _NAMES))


def _open(path: Path) -> Any:
    """A feature, memory-mapped, or None where the tower has no such thing."""
    return np.load(path, mmap_mode="r") if path.is_file() else None


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
