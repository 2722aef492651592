"""Arrays that are written row by row are those of `numpy.save`, and a disk that is full is an error of Python."""

from __future__ import annotations

import errno
import io
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lraee.disk import NoRoomError
from lraee_toolchain.array_file import SCRATCH_BYTES, ArrayFile, save_array, scratch_array


def saved_by_numpy(array: np.ndarray) -> bytes:
    """The bytes of `numpy.save`."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from([np.uint8, np.int64, np.float32]),
)
def test_the_file_is_that_of_numpy_byte_for_byte(tmp_path_factory, shape, dtype):
    """In whatever pieces it is written, and also where it has no rows."""
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    path = tmp_path_factory.getbasetemp() / "array.npy"
    save_array(path, array)
    assert path.read_bytes() == saved_by_numpy(array)
    with ArrayFile(path, dtype, shape) as file:
        for row in reversed(range(len(array))):
            file.write(row, array[row : row + 1])
        assert (file.read(1, 3) == array[1:3]).all()
        assert file.read(0, 100).shape == shape
    assert path.read_bytes() == saved_by_numpy(array)


@pytest.mark.parametrize(("rows", "kept"), [(12, 9), (100_000, 7), (5, 5), (3, 0)])
def test_a_file_that_is_shortened_has_the_first_rows(tmp_path, rows, kept):
    """As if no more had been asked for."""
    array = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    with ArrayFile(tmp_path / "a.npy", np.float32, (rows, 3)) as file:
        file.write(0, array[:kept])
        file.shorten(kept)
    assert (tmp_path / "a.npy").read_bytes() == saved_by_numpy(array[:kept])


def test_a_file_without_room_is_refused_before_anything_is_computed(
    tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    """With its size, and nothing of it is left."""
    with file_size_limit(10_000), pytest.raises(NoRoomError) as caught:
        ArrayFile(tmp_path / "a.npy", np.float32, (1000, 10))
    assert caught.value.errno == errno.EFBIG
    assert caught.value.wanted_bytes == 40_128
    assert (tmp_path / "a.npy").stat().st_size == 0


def test_writing_fails_with_an_error_where_nothing_can_be_reserved(
    tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On systems without the call for it; a memory-mapped file would end the process here."""
    monkeypatch.delattr("os.posix_fallocate", raising=False)
    with (
        file_size_limit(10_000),
        pytest.raises(OSError, match="File too large") as caught,
        ArrayFile(tmp_path / "a.npy", np.float32, (1000, 10)) as file,
    ):
        file.write(0, np.ones((1000, 10), np.float32))
    assert caught.value.errno == errno.EFBIG


def test_an_array_for_a_while_leaves_no_name_and_takes_no_memory(tmp_path: Path) -> None:
    """It lies in a file that nobody sees, or where it is small or no folder is given, in memory."""
    count = SCRATCH_BYTES // 4
    array = scratch_array(tmp_path, np.float32, (count, 1))
    assert list(tmp_path.iterdir()) == []
    assert isinstance(array, np.memmap)
    array[:, 0] = np.arange(count)
    np.testing.assert_array_equal(array[:, 0], np.arange(count, dtype=np.float32))
    for folder, rows in ((tmp_path, count - 1), (None, count)):
        plain = scratch_array(folder, np.float32, (rows, 1))
        assert type(plain) is np.ndarray
        assert plain.shape == (rows, 1)


def test_an_array_for_a_while_that_does_not_fit_is_an_error(
    tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    """Its whole size is reserved, so that writing to it later never ends the process."""
    with file_size_limit(SCRATCH_BYTES - 1), pytest.raises(NoRoomError) as caught:
        scratch_array(tmp_path, np.uint8, (SCRATCH_BYTES,))
    assert caught.value.wanted_bytes == SCRATCH_BYTES
