"""Searches among stored embeddings: float32, INT8 at a quarter of the size, or bits at a thirty-second.

>>> import numpy as np
>>> index = SearchIndex.build(np.eye(4, dtype=np.float32), kind="int8")
>>> found = index.search(np.eye(4, dtype=np.float32)[2:3], top=1)
>>> found.rows.tolist(), index.size_bytes
([[2]], 32)
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from lraee.arrays import FloatArray
from lraee.checks import array_words, check_count, is_real_array
from lraee.errors import DataError

Kind = Literal["float32", "int8", "binary"]
"""- ``float32``: as they are, ``4 * embed_dim`` bytes each.
- ``int8``: rounded, with a scale for each embedding: ``embed_dim + 4`` bytes.
- ``binary``: the sign of each value less the mean of all: ``embed_dim / 8`` bytes. Queries stay float.
"""

CHUNK = 8192
"""Embeddings that are unpacked and compared together, so that memory does not grow with their number."""


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Holds the nearest embeddings of each query, best first."""

    rows: NDArray[np.intp]
    """(queries, top): which of the embeddings that were indexed."""
    scores: FloatArray
    """(queries, top): cosine; for ``binary`` an inner product with signs, which only orders."""


@dataclass(frozen=True, slots=True, eq=False)
class SearchIndex:
    """Holds embeddings ready to be searched; `build` and `load` make it."""

    kind: Kind
    codes: NDArray[Any]
    """(count, embed_dim) float32 or int8, or (count, embed_dim / 8) uint8."""
    scales: FloatArray
    """(count,) of ``int8``, else empty."""
    centre: FloatArray
    """(embed_dim,) of ``binary``, else empty."""

    @classmethod
    def build(cls, embeddings: FloatArray, *, kind: Kind = "float32") -> SearchIndex:
        """Index embeddings in one of three kinds of storage.

        Args:
            embeddings: (count, embed_dim) float32 of unit length, as `Model.embed` gives them.
            kind: how they are kept.

        Raises:
            DataError: another shape, values that are not finite, an unknown kind, or a length that makes no whole
                bytes for ``binary``.
        """
        if kind not in get_args(Kind):
            raise DataError(f"kind is {kind!r}, wanted one of {', '.join(get_args(Kind))}")
        if not is_real_array(embeddings, 2) or not embeddings.size:
            raise DataError(f"embeddings are {array_words(embeddings)}, wanted (count, embed_dim), finite")
        rows, none = np.ascontiguousarray(embeddings, dtype=np.float32), np.empty(0, np.float32)
        if kind == "int8":
            scales = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny) / np.float32(127)
            return cls(kind, np.round(rows / scales[:, None]).astype(np.int8), scales, none)
        if kind == "binary":
            if rows.shape[1] % 8:
                raise DataError(f"embeddings of length {rows.shape[1]} make no whole bytes; take kind='int8'")
            centre = rows.mean(axis=0)
            return cls(kind, np.packbits(rows > centre, axis=1), none, centre)
        return cls(kind, rows, none, none)

    def __len__(self) -> int:
        return len(self.codes)

    @property
    def size_bytes(self) -> int:
        """Bytes of codes and scales, in memory and in the file."""
        return self.codes.nbytes + self.scales.nbytes + self.centre.nbytes

    def search(self, queries: FloatArray, *, top: int = 10) -> Found:
        """Find the nearest embeddings by cosine.

        Args:
            queries: (queries, embed_dim) float32 of unit length.
            top: how many for each query; as many as there are, if fewer.

        Raises:
            DataError: queries of another shape or not finite, or `top` below 1.
        """
        width = self.codes.shape[1] * (8 if self.kind == "binary" else 1)
        if not is_real_array(queries, 2) or queries.shape[1] != width:
            raise DataError(f"queries are {array_words(queries)}, wanted (queries, {width}), finite")
        check_count("top", top, DataError)
        asked = queries - self.centre if self.kind == "binary" else queries
        best_scores = np.empty((len(queries), 0), np.float32)
        best_rows = np.empty((len(queries), 0), np.intp)
        for start in range(0, len(self), CHUNK):
            scores = asked.astype(np.float32) @ self._unpacked(start).T
            rows = np.broadcast_to(np.arange(start, start + scores.shape[1]), scores.shape)
            best_scores = np.concatenate([best_scores, scores], axis=1)
            best_rows = np.concatenate([best_rows, rows], axis=1)
            if best_scores.shape[1] > top:
                kept = np.argpartition(-best_scores, top - 1, axis=1)[:, :top]
                best_scores = np.take_along_axis(best_scores, kept, axis=1)
                best_rows = np.take_along_axis(best_rows, kept, axis=1)
        order = np.lexsort((best_rows, -best_scores), axis=1)
        return Found(np.take_along_axis(best_rows, order, axis=1), np.take_along_axis(best_scores, order, axis=1))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` under another name and rename it, so that a file is never half written.

        Raises:
            DataError: it cannot be written.
        """
        target = Path(path)
        if target.is_dir():
            raise DataError(f"{path} cannot be written, it is a folder; give a file")
        part = target.with_name(f"{target.name}.part")
        try:
            with part.open("wb") as file:
                arrays = {"codes": self.codes, "scales": self.scales, "centre": self.centre}
                np.savez(file, allow_pickle=False, kind=np.array(self.kind), **arrays)
            part.replace(target)
        except OSError as error:
            raise DataError(
                f"{path} cannot be written ({error.strerror}); give a file in a folder that exists and has room"
            ) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SearchIndex:
        """Read an index that `save` wrote; nothing is unpickled.

        Raises:
            DataError: it cannot be read or is not an index.
        """
        try:
            with Path(path).open("rb") as handle:
                file = np.load(handle, allow_pickle=False)
                if not isinstance(file, np.lib.npyio.NpzFile):
                    raise ValueError("it holds a single array")
                kind, codes, scales, centre = (file[name] for name in ("kind", "codes", "scales", "centre"))
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(f"{path} is not a search index: {error}; write it with SearchIndex.save") from error
        wanted = {"float32": np.float32, "int8": np.int8, "binary": np.uint8}.get(str(kind))
        if wanted is None or codes.dtype != wanted or codes.ndim != 2 or not codes.size:
            raise DataError(f"{path} is not a search index: kind {kind}, codes {codes.dtype} {codes.shape}")
        lengths = (len(codes) if str(kind) == "int8" else 0, 8 * codes.shape[1] if str(kind) == "binary" else 0)
        if scales.shape != lengths[:1] or centre.shape != lengths[1:]:
            raise DataError(
                f"{path} is not a search index: scales {scales.shape}, centre {centre.shape}, wanted {lengths}"
            )
        return cls(str(kind), codes, scales.astype(np.float32), centre.astype(np.float32))  # type: ignore[arg-type] # checked

    def _unpacked(self, start: int) -> FloatArray:
        codes = self.codes[start : start + CHUNK]
        if self.kind == "int8":
            return np.asarray(codes * self.scales[start : start + CHUNK, None], np.float32)
        if self.kind == "binary":
            return np.unpackbits(codes, axis=1).astype(np.float32) * 2 - 1
        return codes
