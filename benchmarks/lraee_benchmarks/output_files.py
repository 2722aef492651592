"""Temporary files and folders of a benchmark, and tables that are put into pages."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
