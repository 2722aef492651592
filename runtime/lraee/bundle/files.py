"""Opens the files of a bundle, and says which of them cannot be read, and why.

A file without read permission, or on a failing disk, is not damaged: exporting it again would not help.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import stat
from pathlib import Path

from lraee.bundle.manifest import FileEntry
from lraee.errors import BundleError


def read_file(path: Path, name: str) -> bytes:
    """Read the content of a file.

    Args:
        path: where it lies.
        name: what messages call it.

    Raises:
        BundleError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, name, error) from error


def sha256_of(path: Path, name: str) -> str:
    """Compute the SHA-256 of a file in hexadecimal digits; arguments and errors as `read_file`."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(path, name, error) from error


def file_entry(path: Path) -> FileEntry:
    """Describe a file as a manifest does, by its name, size and SHA-256."""
    return FileEntry(name=path.name, size_bytes=path.stat().st_size, sha256=sha256_of(path, path.name))


def real_file(path: Path, name: str) -> tuple[Path, int]:
    """Follow every link to a file; give the path where it lies and its size in bytes.

    Args:
        path: a file of a bundle, or a link to one.
        name: what messages call it.

    Raises:
        BundleError: it is missing, is not a plain file, or its folder may not be read.
    """
    real = Path(os.path.realpath(path))
    try:
        met = os.stat(real)
    except (FileNotFoundError, NotADirectoryError) as error:
        leads = f": it is a link to {real}, which is not there" if path.is_symlink() else ""
        raise BundleError(
            f"{name} is missing from {path.parent.name}{leads}; the bundle is incomplete, copy or export it again"
        ) from error
    except OSError as error:
        raise unreadable(path, name, error) from error
    if not stat.S_ISREG(met.st_mode):
        raise BundleError(
            f"{name} is missing from {path.parent.name}: what lies there is not a plain file; copy or export it again"
        )
    return real, met.st_size


def is_folder(path: Path) -> bool:
    """Tell whether a folder lies there, also for names that no file can have.

    Raises:
        BundleError: a folder on the way to it may not be read, so that this cannot be known.
    """
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except PermissionError as error:
        raise unreadable(path, str(path), error) from error
    except (OSError, ValueError):
        return False


def unreadable(path: Path, name: str, error: OSError) -> BundleError:
    """Make the error of a file that cannot be read although it may be sound, with the way out."""
    if isinstance(error, PermissionError):
        owner = f"chmod -R a+rX {shlex.quote(str(path))}"
        advice = f"this user may not read it; have its owner allow that, with: {owner}"
    elif isinstance(error, FileNotFoundError | NotADirectoryError):
        advice = "it was removed; copy or export the bundle again"
    else:
        advice = "the disk or the network folder that it lies on fails; copy the bundle to another one"
    return BundleError(f"{name} cannot be read ({error.strerror}); {advice}")
