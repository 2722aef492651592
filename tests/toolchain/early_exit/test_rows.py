"""Rows of arrays on disk are read as numpy would read the whole array, and only when they are asked for."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lraee_toolchain.early_exit import rows
from lraee_toolchain.early_exit.rows import OneHot, Rows, chunks, largest

parts = st.lists(st.integers(0, 5), min_size=1, max_size=3).filter(lambda sizes: sum(sizes) > 0)


def arrays(sizes: list[int]) -> list[np.ndarray]:
    """Arrays (rows, 4, 3) with a value of their own in each place."""
    whole = np.arange(sum(sizes) * 12, dtype=np.float32).reshape(-1, 4, 3)
    return np.split(whole, np.cumsum(sizes)[:-1])


@given(parts, st.data())
def test_rows_are_those_of_the_whole_array(sizes: list[int], data: st.DataObject) -> None:
    """Joined, selected twice, by slices and by numbers, with further axes."""
    found = arrays(sizes)
    whole, lazy = np.concatenate(found), Rows.of(found[0])
    for part in found[1:]:
        lazy = lazy.joined(part)
    for _ in range(data.draw(st.integers(0, 2))):
        index = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6)), np.int64)
        whole, lazy = whole[index], lazy.select(index)
    numbers = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=6)), np.int64)
    start, stop = data.draw(st.integers(0, 8)), data.draw(st.integers(0, 8))
    assert lazy.shape == whole.shape
    assert len(lazy) == len(whole)
    np.testing.assert_array_equal(lazy[numbers], whole[numbers])
    np.testing.assert_array_equal(lazy[start:stop, 1], whole[start:stop, 1])
    np.testing.assert_array_equal(np.asarray(lazy), whole)
    np.testing.assert_array_equal(np.asarray(lazy.joined(Rows.of(whole).select(numbers))), [*whole, *whole[numbers]])


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    """Selecting and joining rows of a file leaves them there: what is written later is what is read."""
    np.save(tmp_path / "x.npy", np.zeros((6, 2)))
    stored = np.load(tmp_path / "x.npy", mmap_mode="r+")
    some = Rows.of(stored).joined(stored).select(np.array([7, 0]))
    stored[1] = 5
    assert some[:].tolist() == [[5, 5], [0, 0]]


def test_chunks_hold_every_row_once_and_few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer rows where there are many columns, one at least."""
    monkeypatch.setattr(rows, "CHUNK", 100)
    monkeypatch.setattr(rows, "CHUNK_VALUES", 1000)
    for count, columns, size in ((0, 1, 100), (100, 10, 100), (250, 5, 100), (250, 40, 25), (3, 5000, 1)):
        cut = list(chunks(count, columns))
        assert [row for piece in cut for row in range(piece.start, piece.stop)] == list(range(count))
        assert all(piece.stop - piece.start == size for piece in cut[:-1])


def test_the_largest_value_is_found_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    """As argmax; nothing of nothing."""
    monkeypatch.setattr(rows, "CHUNK", 7)
    values = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    np.testing.assert_array_equal(largest(Rows.of(values)), values.argmax(axis=1))
    assert largest(values[:0]).shape == (0,)


def test_a_one_hot_row_has_a_one_for_its_class() -> None:
    """Rows of the identity, float32."""
    classes = np.array([2, 0, 1, 2])
    hot = OneHot(classes, 3)
    assert hot.shape == (4, 3)
    np.testing.assert_array_equal(hot[1:], np.eye(3, dtype=np.float32)[classes[1:]])
    assert hot[1:].dtype == np.float32
