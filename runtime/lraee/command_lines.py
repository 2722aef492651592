"""What the commands of all packages say of errors and warnings, each in one line.

Messages of the library name no option of the command that prints them, since several commands do; a command that has
the option adds it here.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping
from typing import TextIO

from lraee.errors import LraeeError


def with_option(error: LraeeError, options: Mapping[str, str]) -> str:
    """The message of an error, and the option that would let it pass if this command has one.

    >>> with_option(LraeeError("too large; scale it down", setting="max_pixels"), {"max_pixels": "raise --max-pixels"})
    'too large; scale it down, or raise --max-pixels'

    Args:
        error: raised by the library.
        options: what to do with an option of this command, by `LraeeError.setting`.
    """
    return f"{error}, or {options[error.setting]}" if error.setting in options else str(error)


def warnings_as_lines() -> None:
    """Print each warning of this process as one line on stderr, without a file, a line and its source.

    For programs alone: it changes `warnings.showwarning`. Left out are Pillow's warnings of the limit that
    `Reading.max_pixels` stands for, and what Pillow logs of a damaged file before it refuses it.
    """
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    warnings.filterwarnings("ignore", message="Image size .* could be decompression bomb", append=False)
    warnings.showwarning = _as_line


def _as_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    print(f"warning: {' '.join(str(message).split())}", file=file or sys.stderr)
