"""Per-block features, extracted once and cached, so that exits can be refitted cheaply with other seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from lraee.engine.sized_tokens import SizedTokens
from lraee_toolchain.array_file import ArrayFile
from lraee_toolchain.early_exit.rows import RowArray, Rows
from lraee_toolchain.early_exit.token_heads.sources import (
    DiskTokens,
    Joined,
    SomeRows,
    TokenSource,
    normed_tokens,
    shard_name,
    sizes_name,
)
from lraee_toolchain.parts.runner import BATCH, Chain

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """What exits read of each image, memory-mapped, read some rows at a time; index 0 of the block axis is block 1."""

    patch_mean: RowArray
    """(images, blocks, width) float32, mean patch token after each block."""
    class_token: RowArray | None
    """(images, blocks, width) float32, or None for a tower without a class token."""
    variance: RowArray
    """(images, blocks) float32, spatial activation variance of the patch tokens."""
    embedding: RowArray
    """(images, embed_dim) float32, full depth, unit rows."""
    probabilities: RowArray
    """(images, labels) float32, full depth."""
    tokens: TokenSource | None = None
    """All tokens after candidate blocks, for heads that learn from them; None where no head does."""
    answers: WeakKeyDictionary[Any, FloatArray] = field(default_factory=WeakKeyDictionary, repr=False)
    """Embeddings (images, embed_dim) by the head that read all tokens, so that they are read once for each head."""
    scratch: Path | None = None
    """Where arrays lie for a while that grow with the images; None keeps them in memory."""

    def __len__(self) -> int:
        """Count the images."""
        return len(self.embedding)

    def rows(self, index: NDArray[np.int64]) -> Features:
        """Select images by their index; nothing is copied."""
        arrays: dict[str, Any] = {}
        for name in _NAMES:
            values = getattr(self, name)
            arrays[name] = None if values is None else Rows.of(values).select(index)
        tokens = None if self.tokens is None else SomeRows(self.tokens, index)
        return Features(**arrays, tokens=tokens, scratch=self.scratch)

    def joined(self, other: Features) -> Features:
        """Put the images of another split after these; nothing is copied."""
        arrays: dict[str, Any] = {}
        for name in _NAMES:
            first, second = getattr(self, name), getattr(other, name)
            arrays[name] = None if first is None else Rows.of(first).joined(second)
        tokens = None
        if self.tokens is not None and other.tokens is not None:
            tokens = Joined(self.tokens, other.tokens)
        return Features(**arrays, tokens=tokens, scratch=self.scratch)


_NAMES = ("patch_mean", "class_token", "variance", "embedding", "probabilities")


def extract_features(
    chain: Chain,
    pixels: NDArray[np.uint8],
    folder: Path,
    *,
    class_token: bool = True,
    shards: Sequence[int] = (),
    advance: Callable[[int], None] | None = None,
) -> None:
    """Run every image to full depth and write the features as ``.npy`` files.

    Args:
        chain: parts to run.
        pixels: (images, size, size, 3) uint8.
        folder: where the files go.
        class_token: whether token 0 is a class token.
        shards: blocks after which all tokens are kept too, as `DiskTokens` reads them.
        advance: called after each batch with its number of images.
    """
    with ExitStack() as opened:
        write = feature_writer(folder, len(pixels), opened)
        for start in range(0, len(pixels), BATCH):
            batch = np.ascontiguousarray(pixels[start : start + BATCH])
            means, classes, variances = [], [], []
            for block, after in enumerate(chain.sized_after_blocks(batch)):
                last = after
                if block == 0:
                    continue
                tokens, sizes = (after.values, after.sizes) if isinstance(after, SizedTokens) else (after, None)
                if block in shards:
                    write(start, **{shard_name(block): normed_tokens(tokens)})
                    if sizes is not None:
                        write(start, **{sizes_name(block): sizes[..., 0].astype(np.float16)})
                mean, variance = patch_moments(tokens, sizes, class_token=class_token)
                means.append(mean)
                variances.append(variance)
                classes += [tokens[:, 0].copy()] if class_token else []
            of_blocks = {"patch_mean": means, "variance": variances} | ({"class_token": classes} if class_token else {})
            embedding, probabilities = chain.tail(last)
            write(start, **{name: np.stack(values, axis=1) for name, values in of_blocks.items()})
            write(start, embedding=embedding, probabilities=probabilities)
            if advance is not None:
                advance(len(batch))


def patch_moments(tokens: FloatArray, sizes: FloatArray | None, *, class_token: bool) -> tuple[FloatArray, FloatArray]:
    """Compute the mean patch token (images, width) and the spatial activation variance (images,).

    A token that stands for several counts as often. Where nothing but the class token is left, as after the last block
    of a schedule, both are 0: no exit stands there.

    Args:
        tokens: (images, tokens, width).
        sizes: (images, tokens, 1), how many tokens each stands for; None where each stands for itself.
        class_token: whether token 0 is a class token, which is no patch.
    """
    patches = tokens[:, int(class_token) :]
    if not patches.shape[1]:
        return np.zeros_like(tokens[:, 0]), np.zeros(len(tokens), np.float32)
    if sizes is None:
        mean = patches.mean(axis=1)
        return mean, np.square(patches - mean[:, None]).sum(axis=2).mean(axis=1)
    shares = sizes[:, int(class_token) :] / sizes[:, int(class_token) :].sum(axis=1, keepdims=True)
    mean = (patches * shares).sum(axis=1)
    variance = (np.square(patches - mean[:, None]).sum(axis=2) * shares[..., 0]).sum(axis=1)
    return mean, variance


def load_features(folder: Path) -> Features:
    """Open what `extract_features` wrote."""
    tokens = DiskTokens(folder)
    arrays = {name: _open(folder / f"{name}.npy") for name in _NAMES}
    return Features(**arrays, tokens=tokens if tokens.blocks else None, scratch=folder.parent)


def _open(path: Path) -> Any:
    """Open a feature, memory-mapped, or give None where the tower has no class token."""
    return np.load(path, mmap_mode="r") if path.is_file() else None


def extract_embeddings(
    chain: Chain, pixels: NDArray[np.uint8], folder: Path, *, advance: Callable[[int], None] | None = None
) -> None:
    """Write only ``embedding.npy`` and ``probabilities.npy`` at full depth: the float teacher."""
    with ExitStack() as opened:
        write = feature_writer(folder, len(pixels), opened)
        for start in range(0, len(pixels), BATCH):
            batch = np.ascontiguousarray(pixels[start : start + BATCH])
            embedding, probabilities = _at_full_depth(chain, batch)
            write(start, embedding=embedding, probabilities=probabilities)
            if advance is not None:
                advance(len(batch))


def extract_averaged(
    chain: Chain,
    pixels: NDArray[np.uint8],
    folder: Path,
    *,
    plain: Teacher,
    others: Callable[[NDArray[np.uint8], int], Iterable[NDArray[np.uint8]]],
    advance: Callable[[int], None] | None = None,
) -> None:
    """Write the same of several views of each image: the mean probabilities, and the unit mean of the embeddings.

    Args:
        chain: the tower.
        pixels: (images, size, size, 3) of all images.
        folder: where the files go.
        plain: what the tower answers for the images as they are.
        others: gives the other views of a batch, which begins at a row; each as large as the batch.
        advance: called with the images of each batch.
    """
    with ExitStack() as opened:
        write = feature_writer(folder, len(pixels), opened)
        for start in range(0, len(pixels), BATCH):
            rows = slice(start, start + BATCH)
            batch = np.ascontiguousarray(pixels[rows])
            answers = [_at_full_depth(chain, seen) for seen in others(batch, start)]
            embedding = np.mean([plain.embedding[rows], *(one for one, _ in answers)], axis=0)
            embedding /= np.linalg.norm(embedding, axis=1, keepdims=True)
            probabilities = np.mean([plain.probabilities[rows], *(one for _, one in answers)], axis=0)
            write(start, embedding=embedding, probabilities=probabilities)
            if advance is not None:
                advance(len(batch))


def _at_full_depth(chain: Chain, batch: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute embeddings, (images, embed_dim) unit rows, and probabilities, (images, labels)."""
    for tokens in chain.sized_after_blocks(batch):
        last = tokens
    return chain.tail(last)


class _Write(Protocol):
    def __call__(self, start: int, **arrays: NDArray[Any]) -> None: ...


def feature_writer(folder: Path, rows: int, opened: ExitStack) -> _Write:
    """Give a function that writes rows of arrays into files.

    Args:
        folder: where the files go; one is made when its name first comes.
        rows: of every file in the end.
        opened: closes the files.
    """
    files: dict[str, ArrayFile] = {}

    def write(start: int, **arrays: NDArray[Any]) -> None:
        for name, part in arrays.items():
            if name not in files:
                file = ArrayFile(folder / f"{name}.npy", part.dtype, (rows, *part.shape[1:]))
                files[name] = opened.enter_context(file)
            files[name].write(start, part)

    return write


@dataclass(frozen=True, slots=True, eq=False)
class Teacher:
    """The float tower's answer for the same images, memory-mapped."""

    embedding: RowArray
    """(images, embed_dim) float32 unit rows."""
    probabilities: RowArray
    """(images, labels) float32."""

    def rows(self, index: NDArray[np.int64]) -> Teacher:
        """Select images by their index; nothing is copied."""
        return Teacher(*(Rows.of(array).select(index) for array in (self.embedding, self.probabilities)))

    def joined(self, other: Teacher) -> Teacher:
        """Put the images of another split after these; nothing is copied."""
        return Teacher(
            Rows.of(self.embedding).joined(other.embedding),
            Rows.of(self.probabilities).joined(other.probabilities),
        )


def load_teacher(folder: Path) -> Teacher:
    """Open what `extract_embeddings` wrote."""
    return Teacher(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("embedding", "probabilities")))
