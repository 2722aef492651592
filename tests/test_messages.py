"""Checks that each option in a message exists, in the command that prints it or in one that the message names.

The text of all packages is searched, not a list of messages, so that a new one is found too. Every command that
reaches a module through imports, however deep, may print its messages; all commands reach the runtime.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from lraee.cli import app as lraee_app
from lraee_benchmarks.cli import app as bench_app
from lraee_toolchain.cli import app as export_app
from lraee_toolchain.ray.__main__ import app as ray_app

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = {
    "lraee": "runtime",
    "lraee_exporters": "exporters",
    "lraee_toolchain": "toolchain",
    "lraee_calibration_data": "calibration_data",
    "lraee_benchmarks": "benchmarks",
}
"""Each package and the folder at the top that holds it."""

COMMANDS: dict[str, tuple[str, Any]] = {
    "lraee-export": ("lraee_toolchain.cli", export_app),
    "lraee-bench": ("lraee_benchmarks.cli", bench_app),
    "python -m lraee": ("lraee.cli", lraee_app),
    "python -m lraee_toolchain.ray": ("lraee_toolchain.ray.__main__", ray_app),
}
"""Each command: the module that is run, and its parser."""

OPTION = re.compile(r"(?<![\w(-])--[a-z][a-z-]*[a-z]|(?<=(?<!var)\()--[a-z][a-z-]*[a-z]")
COMMAND = re.compile(r"lraee-(?:export|bench)|python -m lraee(?:_\w+)?(?:\.\w+)*")
BELONGS_TO = re.compile(rf"(?: \S+)? (?:to|of) ({COMMAND.pattern})")
"""What may follow an option instead: ``pass --exits all to lraee-export``."""

CSS = re.compile(r"--[a-z-]+:\S|var\(--")


@cache
def modules() -> dict[str, Path]:
    """Find every module of the five packages."""
    found = {}
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder / package).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    assert len(found) > 100
    return found


@cache
def tree(module: str) -> ast.Module:
    """Parse a module."""
    return ast.parse(modules()[module].read_text("utf-8"))


def imported(module: str) -> Iterator[str]:
    """Yield our modules that a module imports, also inside functions, and the packages above them."""
    for node in ast.walk(tree(module)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            yield from (known for end in range(len(parts)) if (known := ".".join(parts[: end + 1])) in modules())


@cache
def reached(entry: str) -> frozenset[str]:
    """Collect all modules that a command may load."""
    found, waiting = {entry}, [entry]
    while waiting:
        for name in imported(waiting.pop()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return frozenset(found)


def options_of(command: Any) -> set[str]:
    """List the options of a command, and of its sub-commands."""
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    for below in getattr(command, "commands", {}).values():
        names |= options_of(below)
    return {name for name in names if name.startswith("--")} | {"--help"}


@cache
def known_options(command: str) -> frozenset[str]:
    """List the options of a command of `COMMANDS`, or of a module that is its own program."""
    if command in COMMANDS:
        return frozenset(options_of(get_command(COMMANDS[command][1])))
    module = command.removeprefix("python -m ")
    options = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "add_argument":
            options |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
        if isinstance(node, ast.arg):  # of a function that typer makes a command of
            options.add(f"--{node.arg.replace('_', '-')}")
    return frozenset(options)


def printed_by(module: str, line: int) -> set[str]:
    """Find the commands that may print a line of a module; a module that none reaches is its own program.

    Text outside functions, or in those that typer makes commands of, belongs to that program alone, even if others
    import it.
    """
    functions = [node for node in ast.walk(tree(module)) if isinstance(node, ast.FunctionDef)]
    takes_options = [node for node in functions if "typer.Option" in ast.unparse(node.args)]
    around = [node for node in functions if node.lineno <= line <= (node.end_lineno or 0)]
    if takes_options and all(node in takes_options for node in around):
        return {command for command, (entry, _) in COMMANDS.items() if module == entry} or {f"python -m {module}"}
    found = {command for command, (entry, _) in COMMANDS.items() if module in reached(entry)}
    return found or {f"python -m {module}"}


def texts(module: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every string except docstrings; an f-string keeps gaps for its values."""
    skipped: set[int] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in ast.walk(node) if part is not node}
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped:
            yield node.lineno, node.value


def wrong_options(text: str, printers: set[str]) -> Iterator[str]:
    """Yield what is wrong with the options in a text: each belongs to a command named with it, or to all printers."""
    if CSS.search(text):
        return
    named: set[str] | None = None
    for found in re.finditer(f"{COMMAND.pattern}|{OPTION.pattern}", text):
        if COMMAND.fullmatch(found[0]):
            named = {found[0]}
            continue
        owner = BELONGS_TO.match(text, found.end())
        for command in sorted({owner[1]} if owner else named if named is not None else printers):
            if found[0] not in known_options(command):
                yield f"{found[0]} is not an option of {command}"


def test_every_option_in_a_message_exists_in_the_command_that_prints_it() -> None:
    """Or in the command that the message names before it, such as ``lraee-export --exits all``."""
    wrong = [
        f"{modules()[module].relative_to(ROOT)}:{line}: {complaint}, in {text[:100]!r}"
        for module in modules()
        for line, text in texts(module)
        if OPTION.search(text)
        for complaint in wrong_options(text, printed_by(module, line))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "printers", "complaints"),
    [
        ("give another --labels", {"python -m lraee"}, 0),
        ("give another --threads", {"lraee-export", "lraee-bench", "python -m lraee"}, 1),
        ("run lraee-export --labels FILE", {"lraee-bench"}, 0),
        ("pass --exits all to lraee-export", {"lraee-bench"}, 0),
        ("run lraee-bench --promise 1", {"lraee-export"}, 1),
        ("raise it (--max-pixels)", {"lraee-export"}, 1),
        ("pass --no-such-thing", {"lraee-export"}, 1),
        ("--unreadable skip", {"lraee-export"}, 0),
        ("body{color:var(--ink)}", {"lraee-export"}, 0),
    ],
)
def test_an_option_that_the_reader_cannot_give_is_found(text: str, printers: set[str], complaints: int) -> None:
    """Otherwise the test above would pass whatever the messages say."""
    assert len(list(wrong_options(text, printers))) == complaints


def test_what_the_runtime_says_may_come_from_every_command() -> None:
    """And what a command says of itself from that one; the map of imports is not empty."""
    assert printed_by("lraee.images.read", 1) == set(COMMANDS)
    assert printed_by("lraee.policies.deadline", 1) == set(COMMANDS)
    assert printed_by("lraee_calibration_data.dataset", 1) == {
        "lraee-export",
        "lraee-bench",
        "python -m lraee_toolchain.ray",
    }
    assert printed_by("lraee_exporters.loading.sources", 1) == {"lraee-export"}
    assert printed_by("lraee_toolchain.cli", 1) == {"lraee-export"}
    assert printed_by("lraee_benchmarks.render.html", 1) == {"python -m lraee_benchmarks.render.html"}


def test_skipping_files_is_advised_by_the_command_that_can() -> None:
    """`python -m lraee` reads no data sets, and has no such option."""
    for module in modules():
        for line, text in texts(module):
            if re.search(r"\bskip(ping)? unreadable|choose to skip|--unreadable skip", text):
                assert printed_by(module, line) <= {"lraee-export", "lraee-bench"}, f"{module}:{line}: {text}"
