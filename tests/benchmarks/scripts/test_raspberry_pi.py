"""The guide for a Raspberry Pi is true: commands are accepted, links lead somewhere, columns are explained."""

from __future__ import annotations

import io
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.main import get_command

import lraee
from lraee.cli import app as lraee_app
from lraee_benchmarks.cli import app as bench_app
from lraee_benchmarks.render.text import render_text
from lraee_benchmarks.results.model import Report
from lraee_toolchain.cli import app as export_app

FOLDER = Path(__file__).resolve().parents[3] / "benchmarks"
GUIDE = (FOLDER / "RASPBERRY_PI.md").read_text("utf-8")
COMMANDS = {"lraee-bench": bench_app, "lraee-export": export_app, "python -m lraee": lraee_app}
LINES = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
    if line.startswith(tuple(COMMANDS))
]


def test_the_guide_has_commands() -> None:
    """Else nothing below would be tested."""
    assert {line.split()[0] for line in LINES} == {"lraee-bench", "lraee-export", "python"}


@pytest.mark.parametrize("line", LINES)
def test_a_command_is_accepted(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the very parser that it goes to; nothing is run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    name = next(name for name in COMMANDS if line.startswith(f"{name} "))
    words = [word.replace("~/", f"{tmp_path}/") for word in shlex.split(line.removeprefix(name))]
    command = get_command(COMMANDS[name])
    context = command.make_context(name, words.copy())
    if subcommands := getattr(command, "commands", None):
        subcommands[words[0]].make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)\)", GUIDE))
def test_a_link_leads_to_a_file(target: str) -> None:
    """Links inside the project."""
    assert (FOLDER / target).is_file()


def test_the_wheel_has_the_name_that_it_is_built_with() -> None:
    """A new version changes the guide too."""
    assert re.findall(r"lraee-([0-9.]+)-py3-none-any.whl", GUIDE) == [lraee.__version__]


def test_every_column_of_the_tables_is_explained(make_report: Callable[..., Report]) -> None:
    """The head of each table that the screen shows, in the guide's own table."""
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render_text(make_report()), markup=False)
    printed = console.export_text()
    explained = set(re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\| (`.*?) \|", GUIDE, re.MULTILINE))))
    first = ("p50", "MFLOPs", "images ")
    heads = [line.split("  ") for line in printed.splitlines() if line.lstrip().startswith(first)]
    columns = {word.strip() for head in heads for word in head if word.strip()}
    assert {"p50", "MFLOPs", "latency/FLOPs"} <= columns
    assert columns <= explained
