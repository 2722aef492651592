"""What the system says of files that cannot be written becomes a reason that tells what to do."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

import pytest

from lraee.disk import NoRoomError, free_bytes, writing_trouble


def failed(number: int, path: Path | None = None) -> OSError:
    """Make the error that the system raises."""
    return OSError(number, os.strerror(number), None if path is None else str(path))


def test_a_full_disk_is_said_with_what_is_free_and_what_is_wanted(tmp_path: Path) -> None:
    """Whether or not the error names the file."""
    free = free_bytes(tmp_path)
    assert free is not None
    words = writing_trouble(failed(errno.ENOSPC, tmp_path / "x"), tmp_path)
    assert words is not None
    assert words.startswith("no room: ")
    assert words.endswith(" MB free")
    error = NoRoomError(failed(errno.ENOSPC), tmp_path / "x", 12_340_000)
    assert str(writing_trouble(error, tmp_path)).endswith(" MB free, 12.3 MB wanted")


def test_what_numpy_says_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    """That error has no number of the system."""
    assert str(writing_trouble(OSError("100000 requested and 5104 written"), tmp_path)).startswith("no room: ")
    assert writing_trouble(OSError("something else"), tmp_path) is None


def test_the_temporary_folder_is_named_where_it_is_the_one_that_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the file in the error, or because less is free there."""
    work, temporary = tmp_path / "work", tmp_path / "temporary"
    work.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    said = f"the temporary folder {temporary} has no room (TMPDIR chooses another)"
    assert str(writing_trouble(failed(errno.ENOSPC, temporary / "x"), work)).startswith(said)
    assert str(writing_trouble(failed(errno.ENOSPC, work / "x"), work)).startswith("no room")
    free = {work: 10_000_000, temporary: 0}
    monkeypatch.setattr("lraee.disk.free_bytes", lambda folder: free[folder])
    assert str(writing_trouble(failed(errno.ENOSPC), work)) == f"{said}: 0.0 MB free"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EDQUOT, "a quota is used up"),
        (errno.EFBIG, "no file may be so large here (see ulimit -f"),
        (errno.EROFS, "Read-only file system"),
        (errno.EACCES, "Permission denied"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_other_reasons_are_told_apart(tmp_path: Path, number: int, words: str) -> None:
    """A quota, a limit, lost rights, a disk that fails."""
    assert words in str(writing_trouble(failed(number), tmp_path))
    assert words in str(writing_trouble(failed(number, tmp_path / "x"), tmp_path))


def test_errors_about_something_else_are_left_alone(tmp_path: Path) -> None:
    """Other files that cannot be read, or are missing, do not concern writing."""
    for number in (errno.EACCES, errno.ENOENT):
        assert writing_trouble(failed(number, Path("/somewhere/else")), tmp_path) is None


def test_a_folder_that_was_removed_meanwhile_is_said(tmp_path: Path) -> None:
    """Not which of its files is missing."""
    gone = tmp_path / "gone"
    assert writing_trouble(failed(errno.ENOENT, gone / "x"), gone) == "it was removed meanwhile"
