"""Files are written whole or not at all, and a place that takes none is found before anything takes long."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from lraee.commands.output_files import check_writable, write_file
from lraee.errors import DataError

FULL_DISK = Path("/dev/full")
NO_NEW_FILES = Path("/proc/report.json")
"""A folder that exists and takes no file, even from the superuser."""


def test_a_file_is_written_beside_its_target_first(tmp_path: Path) -> None:
    """What was there is replaced, a link stays a link, and nothing else is left."""
    target, link = tmp_path / "report.json", tmp_path / "link.json"
    target.write_text("before")
    link.symlink_to(target)
    check_writable(link)
    assert target.read_text() == "before"
    write_file(link, "é")
    assert link.is_symlink()
    assert target.read_text(encoding="utf-8") == "é"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.json", "report.json"]


def test_looking_leaves_nothing_behind(tmp_path: Path) -> None:
    """Not even an empty file."""
    check_writable(tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [NO_NEW_FILES, Path("no/such/folder/report.json"), Path("/")])
def test_a_place_that_takes_no_file_is_refused(path: Path) -> None:
    """Before and while writing."""
    for attempt in (lambda: check_writable(path), lambda: write_file(path, "text")):
        with pytest.raises(DataError, match="cannot be written"):
            attempt()


def test_a_full_disk_is_said() -> None:
    """The system's own word for it is in the message."""
    assert stat.S_ISCHR(FULL_DISK.stat().st_mode)
    with pytest.raises(DataError, match="No space left"):
        write_file(FULL_DISK, "text")
