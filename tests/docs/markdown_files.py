"""Reads the Markdown files of the project: their fences, the commands and links in them, and the parsers for those.

The one place where documents are taken apart; tests of any folder may import it.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from install_commands import documents as documents  # every Markdown file of the project
from typer.main import get_command

from lraee.cli import app as lraee_app
from lraee_benchmarks.cli import app as bench_app
from lraee_benchmarks.render.html import app as page_app
from lraee_exporters.single_file import app as single_file_app
from lraee_toolchain.cli import app as export_app
from lraee_toolchain.ray.__main__ import app as ray_app

ROOT = Path(__file__).resolve().parents[2]

COMMANDS: dict[str, Any] = {
    "lraee-export": get_command(export_app),
    "lraee-bench": get_command(bench_app),
    "python -m lraee": get_command(lraee_app),
    "python -m lraee_benchmarks.render.html": get_command(page_app),
    "python -m lraee_exporters.single_file": get_command(single_file_app),
    "python -m lraee_toolchain.ray": get_command(ray_app),
}
"""Our commands and their parsers; a script of ours is ``python benchmarks/….py`` or in the toolchain, with its own."""

NEEDS = re.compile(r"\n\*needs: (.+?)\*\n")
"""The line below a block that the tests do not run: what it needs."""

GENERATED = re.compile(r"<!-- \[\[\[cog .*?<!-- \[\[\[end\]\]\] -->", re.DOTALL)
"""What cog writes into a document."""

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```\n", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_INLINE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """A fenced block of a document."""

    language: str
    """What stands behind its opening fence."""
    text: str
    """Its lines."""
    needs: str | None
    """What its mark says that it needs; None where it has no mark and is therefore run."""


def name(path: Path) -> str:
    """A document's place in the project."""
    return path.relative_to(ROOT).as_posix()


def fences(path: Path) -> list[Fence]:
    """The fenced blocks of a document."""
    text = path.read_text("utf-8")
    found = []
    for block in _FENCE.finditer(text):
        mark = NEEDS.match(text, block.end())
        found.append(Fence(language=block[1], text=block[2], needs=mark[1] if mark else None))
    return found


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each of our commands in a shell text; a line that ends in a backslash goes on."""
    for line in text.replace("\\\n", " ").splitlines():
        if is_ours(line.strip()):
            yield shlex.split(line, comments=True)


def commands(path: Path) -> list[list[str]]:
    """The words of each of our commands in the fences of a document."""
    return [words for fence in fences(path) if fence.language == "bash" for words in command_lines(fence.text)]


def mentions(path: Path) -> list[list[str]]:
    """The words of each of our commands in the text of a document, which may leave out arguments."""
    text = _FENCE.sub("", path.read_text("utf-8"))
    lines = (re.sub(r"\s+", " ", code) for code in _INLINE.findall(text))
    return [shlex.split(line) for line in lines if is_ours(line)]


def is_ours(line: str) -> bool:
    """Whether a line calls a command or a script of the project."""
    return line.startswith(("python benchmarks/", "python toolchain/")) or any(
        line == known or line.startswith(f"{known} ") for known in COMMANDS
    )


def parse(words: list[str]) -> None:
    """Give a command to its own parser and stop before it works.

    Raises:
        click.UsageError: A typer command refuses it.
        SystemExit: A script's argparse refuses it.
        FileNotFoundError: There is no such script.
    """
    known = command_of(words)
    if known is None:
        _parse_script(ROOT / words[1], words[2:])
        return
    arguments = words[len(known.split()) :]
    context = COMMANDS[known].make_context(known, arguments.copy())  # which takes words off its list
    if below := getattr(COMMANDS[known], "commands", None):
        below[arguments[0]].make_context(arguments[0], arguments[1:], parent=context)


def command_of(words: list[str]) -> str | None:
    """The command of `COMMANDS` that is called; None for a script."""
    line = shlex.join(words)
    return next((known for known in sorted(COMMANDS, key=len, reverse=True) if is_call(line, known)), None)


def is_call(line: str, known: str) -> bool:
    """Whether a line calls one command.

    >>> is_call("lraee-bench x", "lraee-bench"), is_call("lraee-bench-more", "lraee-bench")
    (True, False)
    """
    return line == known or line.startswith(f"{known} ")


def options_of(command: Any) -> set[str]:
    """Options of a command and of its subcommands."""
    inner = [options_of(below) for below in getattr(command, "commands", {}).values()]
    own = (name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts))
    return set(own).union(*inner)


def script_options() -> set[str]:
    """Options that scripts below ``benchmarks``, ``docs`` and ``toolchain/experiments`` take."""
    folders = ("benchmarks", "docs", "toolchain/experiments")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    return {option for path in paths for option in re.findall(r'"(--[a-z][a-z-]*)"', path.read_text("utf-8"))}


def links(path: Path) -> list[tuple[str, str]]:
    """Address and anchor of each link of a document to the project, either may be empty."""
    return [(found[1], found[2] or "") for found in _LINK.finditer(_FENCE.sub("", path.read_text("utf-8")))]


def anchors(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and mkdocs make them of plain words."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", path.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


class _Parsed(BaseException):
    """A script's parser took its words."""


def _parse_script(path: Path, words: list[str]) -> None:
    """Run a script up to where its parser is done."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        parse_args(parser, *args, **kwargs)
        raise _Parsed

    before = set(sys.modules)
    with (
        patch.object(sys, "argv", [str(path), *words]),
        patch.object(sys, "path", [str(path.parent), *sys.path]),
        patch.object(argparse.ArgumentParser, "parse_args", stop),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except _Parsed:
            return
        finally:
            for loaded in set(sys.modules) - before:
                if str(getattr(sys.modules[loaded], "__file__", "")).startswith(str(path.parent)):
                    del sys.modules[loaded]
    raise AssertionError(f"{path} has no parser of argparse")
