"""Writes files so that a crash leaves nothing half done: forces them to disk, and says in one line what went wrong."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lraee.disk import writing_trouble
from lraee.errors import ExportError


def sync_tree(folder: Path) -> None:
    """Force a folder's files and names to disk, so that a rename after it never shows half of them."""
    for path in sorted(folder.rglob("*")):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Force one file, or the names in one folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(what: str, folder: Path, advice: str) -> Iterator[None]:
    """Turn an error of the system while writing files into one line.

    Args:
        what: name of what is written.
        folder: where it is written.
        advice: what can be done instead of making room.

    Raises:
        ExportError: there is no room, no permission, or the disk fails.
    """
    try:
        yield
    except OSError as error:
        if (trouble := writing_trouble(error, folder)) is None:
            raise
        raise ExportError(f"{what} cannot be written to {folder} ({trouble}); make room or {advice}") from error
