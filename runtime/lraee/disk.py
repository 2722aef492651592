"""Says why something could not be written and what to do: disks fill up, permissions are lost."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

_NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
_FAILING = {errno.EIO, errno.ENXIO, errno.ENODEV, getattr(errno, "ESTALE", errno.EIO)}

_SHORT_WRITE = re.compile(r"\d+ requested and \d+ written")
"""What numpy says, without a number of the system, when the disk is full."""


class NoRoomError(OSError):
    """The disk has no room for a file whose size is known; `errno` is the system's."""

    def __init__(self, error: OSError, path: Path, wanted_bytes: int) -> None:
        """Take over what the system said.

        Args:
            error: the system's.
            path: of the file.
            wanted_bytes: its whole size.
        """
        super().__init__(error.errno, error.strerror, str(path))
        self.wanted_bytes = wanted_bytes


def free_bytes(folder: Path) -> int | None:
    """Tell how many bytes this user may still write to a folder's disk; None where that is unknown."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return None


def writing_trouble(error: OSError, folder: Path) -> str | None:
    """Explain why files could not be written, with free and wanted bytes; None if the error is about something else.

    Args:
        error: raised while files of `folder`, and temporary ones, were written.
        folder: need not be there any more.
    """
    if error.errno in _NO_ROOM or (error.errno is None and _SHORT_WRITE.search(str(error))):
        place, free = _fullest(error, folder)
        where = f"the temporary folder {place} has no room (TMPDIR chooses another)" if place != folder else "no room"
        facts = [] if free is None else [f"{_size(free)} free"]
        facts += [f"{_size(error.wanted_bytes)} wanted"] if isinstance(error, NoRoomError) else []
        facts += ["a quota is used up"] if error.errno not in (None, errno.ENOSPC) else []
        return f"{where}: {', '.join(facts) or 'the disk is full'}"
    if error.errno == errno.EFBIG:
        wanted = f" of {_size(error.wanted_bytes)}" if isinstance(error, NoRoomError) else ""
        return f"no file{wanted} may be so large here (see ulimit -f, and the kind of file system)"
    if error.errno == errno.ENOENT and "temporary directory" in (error.strerror or ""):
        return "there is no temporary folder that can be written to; set TMPDIR to one"
    if error.errno in _NOT_ALLOWED | _FAILING and (error.filename is None or _is_below(error.filename, folder)):
        return f"{os.strerror(error.errno or 0)}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR) and not folder.is_dir():
        return "it was removed meanwhile"
    return None


def _fullest(error: OSError, folder: Path) -> tuple[Path, int | None]:
    """Find the full disk, of the folder or of temporary files, and what is free there."""
    free = free_bytes(folder)
    try:
        temporary = Path(tempfile.gettempdir())
    except OSError:  # there is none
        return folder, free
    other = free_bytes(temporary)
    if error.filename is not None and _is_below(error.filename, folder):
        return folder, free
    is_temporary = error.filename is not None and _is_below(error.filename, temporary)
    if is_temporary or (free is not None and other is not None and other < free):
        return temporary, other
    return folder, free


def _is_below(name: str | bytes, folder: Path) -> bool:
    return Path(os.path.abspath(os.fsdecode(name))).is_relative_to(folder.absolute())


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
