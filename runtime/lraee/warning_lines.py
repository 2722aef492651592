"""Warnings of this package as a command line shows them: one line each on stderr, without a place in the source."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from lraee.errors import ThreadsWarning


@contextmanager
def warnings_as_one_line() -> Iterator[None]:
    """Print each `ThreadsWarning` as one line on stderr until the block is left; other warnings as Python does."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, ThreadsWarning):
                print(f"warning: {message}", file=sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.simplefilter("default", ThreadsWarning)
        warnings.showwarning = show
        yield
