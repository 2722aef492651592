"""Write arrays larger than memory into ``.npy`` files row by row, on a disk that may be full.

Differs from numpy's memory-mapped files, which begin as holes: a disk that fills up later ends the process with SIGBUS.
Here the whole size is reserved at once, and what cannot be written is an error of Python.
"""

from __future__ import annotations

import errno
import io
import math
import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lraee.disk import NoRoomError

_NOT_SUPPORTED = {errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV}
"""What file systems say that cannot reserve."""

SCRATCH_BYTES = 2**20
"""Arrays for a while that are smaller stay in memory."""


class ArrayFile:
    """A context manager that writes a ``.npy`` file as ``numpy.save`` would."""

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> None:
        """Make the file and reserve its whole size.

        Args:
            path: replaced if it is there.
            dtype: of the array.
            shape: of the array; rows are along its first axis.

        Raises:
            OSError: the disk is full, which the message says with the size, or the file cannot be made.
        """
        self._dtype, self._shape, self._path = np.dtype(dtype), shape, path
        self._row_bytes = self._dtype.itemsize * math.prod(shape[1:])
        header = self._header(shape)
        self._begin = len(header)
        self._file = path.open("w+b")
        try:
            self._reserve(self._begin + shape[0] * self._row_bytes)
            self._write_at(0, header)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def write(self, start: int, rows: NDArray[Any]) -> None:
        """Write rows (rows, ...) from row `start` on."""
        self._write_at(self._begin + start * self._row_bytes, np.ascontiguousarray(rows, self._dtype).tobytes())

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Copy rows `start` to `stop`, both cut to the length of the array."""
        start, stop = (min(row, self._shape[0]) for row in (start, stop))
        self._file.seek(self._begin + start * self._row_bytes)
        content = self._file.read((stop - start) * self._row_bytes)
        return np.frombuffer(content, self._dtype).reshape(stop - start, *self._shape[1:]).copy()

    def shorten(self, count: int) -> None:
        """Keep only the first `count` rows."""
        self._shape = (count, *self._shape[1:])
        header = self._header(self._shape)
        if len(header) != self._begin:  # numpy leaves room in headers for the first axis to grow
            raise ValueError(f"the header of {self._path.name} has {len(header)} bytes, wanted {self._begin}")
        self._write_at(0, header)
        self._file.truncate(self._begin + count * self._row_bytes)

    def _header(self, shape: tuple[int, ...]) -> bytes:
        header = io.BytesIO()
        about = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, about)
        return header.getvalue()

    def _reserve(self, size: int) -> None:
        try:
            reserve(self._file.fileno(), size, self._path)
        except NoRoomError:
            self._file.truncate(0)  # give back what could be reserved, or it would count as used
            raise

    def _write_at(self, position: int, content: bytes) -> None:
        self._file.seek(position)
        self._file.write(content)
        self._file.flush()


def reserve(descriptor: int, size: int, path: Path) -> None:
    """Reserve the whole size of an open file where the system can.

    Raises:
        NoRoomError: the disk is full.
    """
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise NoRoomError(error, path, size) from error


def scratch_array(folder: Path | None, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Make an array for a while, whose memory the system may write out to a file without a name.

    The file is gone with the array, also when the process is killed.

    Args:
        folder: on whose disk it lies; None makes a plain array.
        dtype: of the array.
        shape: of the array; its values are not set.

    Raises:
        OSError: the disk is full, which the message says with the size, or no file can be made there.
    """
    size = np.dtype(dtype).itemsize * math.prod(shape)
    if folder is None or size < SCRATCH_BYTES:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(dir=folder) as file:
        reserve(file.fileno(), size, folder / "scratch")
        file.truncate(size)
        return np.memmap(file, dtype, "r+", shape=shape)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array as ``numpy.save`` does, byte for byte; a full disk raises `NoRoomError`."""
    with ArrayFile(path, array.dtype, array.shape) as file:
        file.write(0, array)
