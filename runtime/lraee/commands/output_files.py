"""Writes files that a command makes, which are tried before anything takes long and never left half written."""

from __future__ import annotations

import os
from errno import EISDIR
from pathlib import Path

from lraee.errors import DataError


def check_writable(path: Path) -> None:
    """Find out whether a file could be written, without changing what is there.

    Raises:
        DataError: the path is a folder, its folder does not exist or takes no file, or the file there is read-only.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR))
        if path.is_file():
            with path.open("ab"):
                pass
        if path.is_file() or not path.exists():
            part = _part(path)
            with part.open("wb"):
                pass
            part.unlink()
    except OSError as error:
        raise _refused(path, error) from error


def write_file(path: Path, text: str) -> None:
    """Write UTF-8 to a file next to the target and rename it, so that the target is whole or as it was.

    What is not a file, such as ``/dev/stdout``, is written to directly.

    Raises:
        DataError: it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():  # such as /dev/stdout
            path.write_text(text, encoding="utf-8")
            return
        part = _part(path)
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path.resolve())
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise _refused(path, error) from error


def _part(path: Path) -> Path:
    target = path.resolve()  # a link stays a link
    return target.with_name(f"{target.name}.part")


def _refused(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be written ({error.strerror}); give a file in a folder that exists and has room")
