"""Opens the images of a folder, a zip or Parquet; a worker does so by itself, and reads its shards in place."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path

from lraee.errors import DataError, ImageError
from lraee_calibration_data.files import ZipFiles, open_files
from lraee_toolchain.ray.config import Settings
from lraee_toolchain.ray.items import Item, Source
from lraee_toolchain.ray.parquet_source import ParquetSource, find_parquet


class FileSource:
    """The image files of a folder or a zip, sorted by their paths."""

    def __init__(self, path: Path) -> None:
        """List the files; raises DataError where there are none."""
        self._path, self._files = path, open_files(path)
        self._between = ":" if isinstance(self._files, ZipFiles) else "/"

    @property
    def fingerprint(self) -> str:
        """Hash of the files' paths, with sizes and checksums in a zip, with sizes and times of change in a folder."""
        state = hashlib.sha256()
        if isinstance(self._files, ZipFiles):
            with zipfile.ZipFile(self._path) as archive:
                for member in archive.infolist():
                    _add(state, member.filename, member.CRC, member.file_size)
        for key in self._files.keys:
            if isinstance(self._files, ZipFiles):
                _add(state, key)
                continue
            try:
                status = (self._path / key).stat()
            except OSError as error:  # its row says so
                _add(state, key, error.errno)
            else:
                _add(state, key, status.st_size, status.st_mtime_ns)
        return state.hexdigest()

    def __len__(self) -> int:
        return len(self._files.keys)

    def items(self, start: int, stop: int) -> Iterator[Item]:
        """Read the files from position `start` up to `stop`, in order."""
        for position, key in enumerate(self._files.keys[start:stop], start=start):
            content: bytes | ImageError
            try:
                content = self._files.read(key)
            except ImageError as error:
                content = error
            name = key.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            yield Item(position=position, name=name, called=f"{self._path}{self._between}{name}", content=content)


def _add(state: hashlib._Hash, *values: object) -> None:
    state.update("\0".join(map(str, values)).encode(errors="surrogateescape") + b"\n")


def open_source(path: Path, settings: Settings) -> Source:
    """Open a folder or zip of images, a Parquet file, or a folder of Parquet files.

    A folder is one of Parquet files where it holds any, at any depth.

    Raises:
        DataError: there is nothing there, it cannot be read, or it holds no image.
    """
    if files := find_parquet(path):
        return ParquetSource(path, files, settings)
    if path.is_dir() and not any(path.iterdir()):
        raise DataError(f"{path} is an empty folder; give a folder or a zip of images, or Parquet with images")
    return FileSource(path)
