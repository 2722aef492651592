"""The README is true: its Python runs, its commands parse or run, its links lead somewhere.

Commands that cost little are run. The others, which want weights or images that are not shipped, go through the very
parser that the command uses, up to the point where it would begin to work.
"""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
from typer.main import get_command

from lraee.cli import app as lraee_app
from lraee_benchmarks.cli import app as bench_app
from lraee_calibration_data import fashion_mnist_test, open_dataset
from lraee_toolchain.cli import app as export_app

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")

COMMANDS: dict[str, Any] = {
    "lraee-export": get_command(export_app),
    "lraee-bench": get_command(bench_app),
    "python -m lraee": get_command(lraee_app),
}
"""What the README may call, and its parser."""

FEW_ROUNDS = ["--launches", "1", "--repeats", "2", "--warmup", "0", "--cold-starts", "0", "--image-count", "4"]


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def shell_lines() -> list[str]:
    """The commands of all bash blocks, without comments; a line that ends in a backslash goes on."""
    lines = "".join(blocks("bash")).replace("\\\n", " ").splitlines()
    return [shlex.join(shlex.split(line, comments=True)) for line in lines if line.strip()]


def arguments(line: str) -> tuple[str, list[str]] | None:
    """The command of `COMMANDS` that a line calls and its arguments, or None for another program."""
    for name in COMMANDS:
        if line == name or line.startswith(f"{name} "):
            return name, shlex.split(line.removeprefix(name))
    return None


OURS = [line for line in shell_lines() if arguments(line)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds the image which the README names."""
    dataset = open_dataset(fashion_mnist_test())
    index = next(i for i, sample in enumerate(dataset.samples) if sample.label == "trousers")
    (tmp_path / "trousers.png").write_bytes(dataset.read_bytes(index))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_prints_what_the_readme_says(folder: Path) -> None:
    """All Python blocks are one session, on the shipped bundle."""
    source = "\n".join(blocks("python"))
    examples = doctest.DocTestParser().get_doctest(source, {}, "README.md", "README.md", 0)
    assert len(examples.examples) >= 7
    printed: list[str] = []
    result = doctest.DocTestRunner().run(examples, out=printed.append)
    assert result.failed == 0, "".join(printed)


@pytest.mark.parametrize("line", OURS)
def test_a_command_is_accepted(line: str, folder: Path) -> None:
    """Every option, choice and argument; nothing is run."""
    found = arguments(line)
    assert found is not None
    name, words = found
    context = COMMANDS[name].make_context(name, words.copy())  # which takes words off its list
    if subcommands := getattr(COMMANDS[name], "commands", None):
        subcommands[words[0]].make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize("line", [line for line in OURS if " reference" in line])
def test_a_command_on_the_shipped_bundle_runs(line: str, folder: Path) -> None:
    """With few rounds where it measures."""
    program, *words = shlex.split(line)
    words += FEW_ROUNDS if program == "lraee-bench" else []
    command = [Path(sys.executable).with_name(program), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("line", [line for line in OURS if "--pretrained" in line])
def test_pretrained_is_a_tag_that_open_clip_knows_or_a_file(line: str) -> None:
    """Tags are renamed now and then."""
    words = shlex.split(line)
    architecture, pretrained = words[1], words[words.index("--pretrained") + 1]
    assert pretrained.endswith(".pt") or pretrained in open_clip.list_pretrained_tags_by_model(architecture)


def test_options_in_the_text_exist() -> None:
    """`--like-this`, wherever it stands, belongs to one of the commands."""
    known = {option for command in COMMANDS.values() for option in options_of(command)} | {"--help"}
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", re.sub(r"<!--.*?-->", "", README)))
    assert mentioned
    assert mentioned <= known


def options_of(command: Any) -> set[str]:
    """Options of a command and of its subcommands."""
    inner = [options_of(sub) for sub in getattr(command, "commands", {}).values()]
    return {option for parameter in command.params for option in parameter.opts}.union(*inner)


def test_make_targets_exist() -> None:
    """In the README and in CONTRIBUTING.md."""
    texts = README + (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    named = set(re.findall(r"^make ([a-z]+)", texts, re.MULTILINE)) | set(re.findall(r"`make ([a-z]+)`", texts))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


def test_extras_exist() -> None:
    """`pip install '.[...]'` names extras of pyproject.toml."""
    named = set(re.findall(r"(?:lraee|\.)\[(\w+)\]", README))
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert named == {"image", "export", "openvino"}
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in named)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_a_link_leads_to_a_file(target: str) -> None:
    """Links inside the project, and the picture."""
    assert (ROOT / target).is_file()


def test_the_table_of_the_demo_has_its_place() -> None:
    """One pair of marks, so that a new run can take the old one's place."""
    assert len(re.findall(r"<!-- demo-table -->\n.+?\n<!-- /demo-table -->", README, re.DOTALL)) == 1
