"""Arrays larger than memory: rows of memory-mapped files, joined and selected without a copy, read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

CHUNK = 4096
"""Rows that are computed together, at most; bounds memory. Sets of no more rows are computed in one piece."""

CHUNK_VALUES = 2**23
"""Values of one array that are computed together: fewer rows where there are many labels."""


class RowArray(Protocol):
    """An array (rows, ...) of which some rows are read at a time: numpy's own, or `Rows`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As of numpy."""
        ...

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Read as numpy does: rows (a slice or their numbers), then further axes."""
        ...


class Rows:
    """Some rows of arrays that lie one after the other; what is read is copied, nothing else."""

    def __init__(self, parts: Sequence[NDArray[Any]], index: NDArray[np.int64] | None = None) -> None:
        """Name the arrays.

        Args:
            parts: at least one, equal but for their first axis.
            index: rows of all parts together, in any order; None takes all.
        """
        self._parts, self._index = tuple(parts), index
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    @classmethod
    def of(cls, array: RowArray) -> Rows:
        """Take an array of either kind."""
        return array if isinstance(array, cls) else cls([np.asarray(array)])

    @property
    def shape(self) -> tuple[int, ...]:
        """As of numpy."""
        return (len(self), *self._parts[0].shape[1:])

    def __len__(self) -> int:
        """Count the rows."""
        return int(self._starts[-1]) if self._index is None else len(self._index)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all rows."""
        return np.asarray(self[:], dtype)

    def __getitem__(self, key: Any, /) -> NDArray[Any]:
        """Read rows, a slice or their numbers, and of each what further axes select."""
        rows, *rest = key if isinstance(key, tuple) else (key,)
        if self._index is None and len(self._parts) == 1:
            return np.asarray(self._parts[0][(rows, *rest)])
        every = np.arange(len(self)) if self._index is None else self._index
        index: NDArray[np.int64] = every[rows]
        if len(self._parts) == 1:
            return np.asarray(self._parts[0][(index, *rest)])
        part_of = np.searchsorted(self._starts, index, side="right") - 1
        found: NDArray[Any] | None = None
        for number, part in enumerate(self._parts):
            here = part_of == number
            values = part[(index[here] - self._starts[number], *rest)]
            if found is None:
                found = np.empty((len(index), *values.shape[1:]), values.dtype)
            found[here] = values
        assert found is not None
        return found

    def select(self, index: NDArray[np.int64]) -> Rows:
        """Take some of these rows, in any order."""
        return Rows(self._parts, index if self._index is None else self._index[index])

    def joined(self, other: RowArray) -> Rows:
        """Put the rows of another array after these."""
        after = Rows.of(other)
        if self._index is None and after._index is None:
            return Rows([*self._parts, *after._parts])
        first, second = (np.arange(len(r)) if r._index is None else r._index for r in (self, after))
        return Rows([*self._parts, *after._parts], np.concatenate([first, second + self._starts[-1]]))


@dataclass(frozen=True, slots=True, eq=False)
class OneHot:
    """Rows with a 1 for each row's class, made when they are asked for."""

    classes: NDArray[np.int64]
    """(rows,)."""
    labels: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all rows."""
        return len(self.classes), self.labels

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.classes)

    def __getitem__(self, key: Any, /) -> NDArray[np.float32]:
        """Make rows, a slice or their numbers; float32."""
        classes = self.classes[key]
        found = np.zeros((len(classes), self.labels), np.float32)
        found[np.arange(len(classes)), classes] = 1
        return found


def chunks(count: int, columns: int = 1) -> Iterator[slice]:
    """Cut `count` rows of so many columns into pieces that are computed one after the other."""
    size = max(1, min(CHUNK, CHUNK_VALUES // max(columns, 1)))
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def largest(array: RowArray) -> NDArray[np.int64]:
    """Find the position of the largest value of each row, (rows,) int64; `array` is (rows, columns)."""
    found = [np.asarray(array[rows]).argmax(axis=1) for rows in chunks(*array.shape[:2])]
    return np.concatenate([np.zeros(0, np.int64), *found])
