"""Write files of results, which are tried before anything is measured and never left half written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from errno import EISDIR
from pathlib import Path
from typing import IO

from lraee.disk import writing_trouble
from lraee.errors import DataError

_OTHER_FOLDER = "set TMPDIR to a folder with room"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make a folder that is removed at the end.

    Raises:
        DataError: it cannot be made.
    """
    with ExitStack() as stack:
        try:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lraee-bench-")))
        except OSError as error:
            raise DataError(f"no temporary folder can be made ({error.strerror}); {_OTHER_FOLDER}") from error
        yield folder


def temporary_file() -> IO[bytes]:
    """Open a file without a name, which is gone when it is closed.

    Raises:
        DataError: it cannot be made.
    """
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise DataError(f"no temporary file can be made ({error.strerror}); {_OTHER_FOLDER}") from error


@contextmanager
def temporary_room(folder: Path) -> Iterator[None]:
    """Say in one line that temporary files cannot be written into a folder.

    Raises:
        DataError: the disk is full, or the folder may not be written to.
    """
    try:
        yield
    except OSError as error:
        if (trouble := writing_trouble(error, folder)) is None:
            raise
        raise DataError(f"temporary files cannot be written ({trouble}); {_OTHER_FOLDER}") from error


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


def with_block(page: str, name: str, content: str) -> str:
    r"""Put text between the marks of that name on a page, in place of what stands there.

    >>> with_block("a <!-- table --> b <!-- /table --> c", "table", "new")
    'a <!-- table -->\n\nnew\n\n<!-- /table --> c'

    Raises:
        ValueError: the marks are not there.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, there, rest = page.partition(begin)
    _, also_there, after = rest.partition(end)
    if not (there and also_there):
        raise ValueError(f"the page has no {begin} and {end} to put the table between")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def _part(path: Path) -> Path:
    target = path.resolve()  # a link stays a link
    return target.with_name(f"{target.name}.part")


def _refused(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be written ({error.strerror}); give a file in a folder that exists and has room")
