"""Prints to a terminal, a pipe or a file, whatever characters it accepts and however full it is.

- A terminal gets tables that fit it; anything else one line for each row, however long.
- Characters that would act on a terminal are printed as escapes, such as ``\\x1b``: names and labels come from others.
- What the encoding of an output lacks is printed as an escape too.
- A reader that stops, as ``head`` does, ends the command with status 141, as with other programs. An output that is
  full or was closed ends it with one line and status 1.
- Notes, progress and errors that cannot be written are dropped: an export of hours must not fail because of its log.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import typer

from lraee.errors import ImageWarning, LraeeError, ThreadsWarning

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

ERROR_STATUS = 1
BROKEN_PIPE_STATUS = 141
"""128 + SIGPIPE, which shells show of a program that the signal ended."""

INTERRUPTED_STATUS = 130
"""128 + SIGINT."""

_ClickError: Any = typer.BadParameter.__mro__[2]
"""What click raises for wrong usage; newer versions of typer contain their own click."""

_UNBOUNDED = 100_000
"""Columns of an output that is not a terminal."""

_HARMLESS = frozenset("\u200c\u200d")
"""Characters of the category of formats that words and pictures are joined with."""


def printable(text: str) -> str:
    """Escape everything except visible characters and blanks: control characters, line ends, marks of direction, lone
    surrogates.

    >>> print(printable("a\\x1b[31m b\\n"))
    a\\x1b[31m b\\n
    """
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or _is_harmless(one) else _escaped(one) for one in text)


def _is_harmless(character: str) -> bool:
    return unicodedata.category(character) == "Zs" or character in _HARMLESS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def one_line(message: object) -> str:
    """Format a message without line ends and without what would act on a terminal."""
    return printable(" ".join(str(message).split()))


def tell(message: object, *, style: str = "") -> None:
    """Print one line to stderr, never wrapped."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text(one_line(message), style=style), soft_wrap=True)


def with_option(error: LraeeError, options: Mapping[str, str]) -> str:
    """Give the message of an error with the option that would let it pass, if this command has one.

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
    for category in (ImageWarning, ThreadsWarning):  # what was asked for is done, so no setting makes errors of them
        warnings.simplefilter("default", category)
    warnings.showwarning = _as_line


def _as_line(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    tell(f"warning: {message}")


@contextmanager
def errors_as_one_line(options: Mapping[str, str] | None = None, *, prefix: str = "error") -> Iterator[None]:
    """Turn an error of the library into one red line on stderr and exit status 1, also outside a typer application.

    Args:
        options: what to do with an option of the command, by the setting that an error names; see `with_option`.
        prefix: of the line.
    """
    try:
        yield
    except LraeeError as error:
        tell(f"{prefix}: {with_option(error, options or {})}", style="red")
        raise SystemExit(ERROR_STATUS) from error


def print_line(line: str) -> None:
    """Print one line to stdout at once."""
    print(line, flush=True)


def show(*things: RenderableType, widest: int | None = None) -> None:
    """Print tables and texts to stdout.

    Args:
        things: what rich prints; they are escaped here.
        widest: columns that are used of a wider terminal; None uses all.
    """
    from rich.console import Console

    console = Console(highlight=False)
    if console.is_terminal:
        console.width = min(widest or console.width, console.width)
        for thing in things:
            console.print(_Escaped(thing))
        return
    console.width = _UNBOUNDED
    with console.capture() as captured:
        for thing in things:
            console.print(_Escaped(thing))
    print("\n".join(line.rstrip() for line in captured.get().splitlines()), flush=True)


class _Escaped:
    """Wraps a renderable, and makes its text printable after it was laid out."""

    def __init__(self, thing: RenderableType) -> None:
        self._thing = thing

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment
        from rich.text import Text

        thing = Text(self._thing) if isinstance(self._thing, str) else self._thing
        for segment in console.render(thing, options):
            lines = segment.text.split("\n")
            yield Segment("\n".join(map(printable, lines)), segment.style, segment.control)


def run_command(app: typer.Typer, name: str, options: Mapping[str, str] | None = None) -> None:
    """Run a command to its end and leave the process with its exit status.

    Args:
        app: what it does. An error of the library that it lets out is printed with `name` in front.
        name: of the program.
        options: as of `errors_as_one_line`.
    """
    warnings_as_lines()
    with _outputs():
        try:
            try:
                status = _status_of(app, name, options or {})
            finally:
                sys.stdout.flush()
        except _OutputLostError as lost:
            _drop(lost.descriptor)
            if isinstance(lost.error, BrokenPipeError):
                sys.exit(BROKEN_PIPE_STATUS)
            tell(f"{name}: the output cannot be written ({lost.error.strerror}); send it somewhere else", style="red")
            sys.exit(ERROR_STATUS)
        sys.exit(status)


def _status_of(app: typer.Typer, name: str, options: Mapping[str, str]) -> int:
    try:
        result = app(standalone_mode=False)
    except LraeeError as error:
        tell(f"{name}: {with_option(error, options)}", style="red")
        return ERROR_STATUS
    except _ClickError as error:
        if isinstance(error.message, str):  # it repeats arguments, which may be names of files
            error.message = "\n".join(map(printable, error.message.split("\n")))
        error.show()
        return int(error.exit_code)
    except typer.Abort:
        tell(f"{name}: interrupted")
        return INTERRUPTED_STATUS
    return result if isinstance(result, int) else 0


class _OutputLostError(Exception):
    """Stdout accepts no more. It is not an OSError, because typer and rich would each handle that in their own way."""

    def __init__(self, descriptor: int, error: OSError) -> None:
        super().__init__(str(error))
        self.descriptor, self.error = descriptor, error


class _Stdout(io.FileIO):
    """Raises its own error when the output accepts no more."""

    def write(self, content: Any) -> int:
        """Write the content, or raise `_OutputLostError`."""
        try:
            return super().write(content)
        except OSError as error:
            raise _OutputLostError(self.fileno(), error) from error


class _Stderr(io.FileIO):
    """Drops whatever it cannot write to stderr."""

    def write(self, content: Any) -> int:
        """Write, or drop all of it."""
        try:
            return super().write(content)
        except OSError:
            return len(content)


@contextmanager
def _outputs() -> Iterator[None]:
    """Prepare stdout and stderr for any character and any failure; streams that a program has put there are used."""
    _occupy_closed()
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if sys.platform != "win32":  # its consoles do not accept bytes
        if sys.stdout is sys.__stdout__:
            sys.stdout = _text(_Stdout(1, "wb", closefd=False), sys.stdout)
        if sys.stderr is sys.__stderr__:
            sys.stderr = _text(_Stderr(2, "wb", closefd=False), sys.stderr)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _text(raw: io.FileIO, like: Any) -> io.TextIOWrapper:
    """Open a stream over `raw` with the settings of another, which is None where it was closed."""
    encoding = getattr(like, "encoding", None) or "utf-8"
    buffered = getattr(like, "line_buffering", False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors="backslashreplace", line_buffering=buffered)


def _occupy_closed() -> None:
    """Occupy standard streams that were closed, or the next file opened would take their place.

    Writing to what is there then fails, as to a closed one.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_WRONLY if descriptor == 0 else os.O_RDONLY)
            if opened != descriptor:
                os.close(opened)


def _drop(descriptor: int) -> None:
    """Discard what is still buffered for a stream."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def tab_separated(cells: Iterable[str]) -> str:
    """Join cells to one line; tabs in them are escaped, so that they can be told apart.

    >>> tab_separated(["a b", "c"])
    'a b\\tc'
    """
    return "\t".join(map(printable, cells))
