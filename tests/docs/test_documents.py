"""Every Markdown file is true: its Python runs, its commands parse or run, its links lead somewhere.

A block that the tests do not run has a line below it that says what it needs. Commands on the shipped bundle run with
few rounds; all others go through the very parser that the command uses, up to the point where it would begin to work.
"""

from __future__ import annotations

import doctest
import re
import shlex
import subprocess
import sys
from pathlib import Path

import open_clip
import pytest
from markdown_files import (
    COMMANDS,
    GENERATED,
    ROOT,
    anchors,
    command_lines,
    command_of,
    commands,
    documents,
    fences,
    links,
    mentions,
    name,
    options_of,
    parse,
    script_options,
)
from typer.testing import CliRunner

from lraee.cli import app as lraee_app
from lraee_calibration_data import fashion_mnist_test, open_dataset

DOCUMENTS = documents()
WITH_PYTHON = [path for path in DOCUMENTS if any(fence.language == "python" for fence in fences(path))]
WITH_COMMANDS = [path for path in DOCUMENTS if commands(path)]
WITH_LINKS = [path for path in DOCUMENTS if links(path)]
SITE = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAIN = ("lraee-export", "lraee-bench", "python -m lraee")
FEW_ROUNDS = ["--repeats", "2", "--warmup", "0", "--cold-starts", "0", "--image-count", "4", "--launches", "1"]


def runnable() -> list[str]:
    """Each command in a fence without a mark, once."""
    found = {
        shlex.join(words)
        for path in DOCUMENTS
        for fence in fences(path)
        if fence.language == "bash" and fence.needs is None
        for words in command_lines(fence.text)
        if shlex.join(words).startswith(MAIN)
    }
    return sorted(found)


RUNNABLE = runnable()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds the image which the documents name."""
    dataset = open_dataset(fashion_mnist_test())
    index = next(i for i, sample in enumerate(dataset.samples) if sample.label == "trousers")
    (tmp_path / "trousers.png").write_bytes(dataset.read_bytes(index))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", WITH_PYTHON, ids=name)
def test_python_prints_what_the_document_says(path: Path, folder: Path) -> None:
    """All blocks of a document are one session on the shipped bundle; a marked block only has to be Python."""
    session = []
    for fence in fences(path):
        if fence.language == "python" and fence.needs is None:
            assert ">>>" in fence.text, f"give the block prompts, or a line '*needs: …*' below it:\n{fence.text}"
            session.append(fence.text)
        elif fence.language == "python":
            compile(fence.text, name(path), "exec")
    examples = doctest.DocTestParser().get_doctest("\n".join(session), {}, name(path), str(path), 0)
    printed: list[str] = []
    result = doctest.DocTestRunner().run(examples, out=printed.append)
    assert result.failed == 0, "".join(printed)


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name)
def test_commands_are_accepted(path: Path, folder: Path) -> None:
    """Every option, choice and argument of a command or script; nothing is run."""
    (folder / "results").mkdir()  # lraee-bench looks whether it could write
    for words in commands(path):
        try:
            parse([word.replace("~/", f"{folder}/") for word in words])
        except (Exception, SystemExit) as error:
            pytest.fail(f"{name(path)}: {shlex.join(words)}: {error!r}")


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if mentions(path)], ids=name)
def test_commands_in_the_text_have_the_options_that_it_names(path: Path, folder: Path) -> None:
    """They may leave out arguments; a script that has some is parsed as a whole."""
    for words in mentions(path):
        if (known := command_of(words)) is not None:
            named = {word for word in words if word.startswith("--")}
            assert named <= options_of(COMMANDS[known]) | {"--help"}, shlex.join(words)
        elif len(words) > 2:
            parse(words)
        else:
            assert (ROOT / words[1]).is_file(), shlex.join(words)


@pytest.mark.parametrize("line", RUNNABLE)
def test_a_command_without_a_mark_runs(line: str, folder: Path) -> None:
    """It is on the shipped bundle, with few rounds where it measures; what needs more has a line '*needs: …*' below."""
    words = shlex.split(line)
    assert "reference" in words, f"{line}: add a line '*needs: …*' below its block"
    if line.startswith("python -m lraee "):
        result = CliRunner().invoke(lraee_app, words[3:])
        assert result.exit_code == 0, result.output
        assert result.stdout
        return
    done = subprocess.run(
        [Path(sys.executable).with_name(words[0]), *words[1:], *FEW_ROUNDS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_there_is_something_to_run_and_to_parse() -> None:
    """Otherwise the tests above would pass whatever the documents say."""
    assert len(WITH_PYTHON) >= 4
    assert {line.split()[0] for line in RUNNABLE} == {"lraee-bench", "python"}
    assert {"README.md", "docs/export.md", "docs/raspberry-pi.md"} <= {name(path) for path in WITH_COMMANDS}


def test_pretrained_is_a_tag_that_open_clip_knows_or_a_file() -> None:
    """Tags are renamed now and then."""
    for path in WITH_COMMANDS:
        for words in commands(path):
            if "--pretrained" in words:
                architecture, pretrained = words[1], words[words.index("--pretrained") + 1]
                known = open_clip.list_pretrained_tags_by_model(architecture)
                assert pretrained.endswith(".pt") or pretrained in {*known, "random"}


@pytest.mark.parametrize("path", SITE, ids=name)
def test_options_in_the_text_exist(path: Path) -> None:
    """`--like-this`, wherever it stands in inline code, belongs to a command or a script."""
    known = {option for command in COMMANDS.values() for option in options_of(command)} | script_options() | {"--help"}
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    mentioned = {
        option for code in re.findall(r"`[^`]+`", text) for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", code)
    }
    assert mentioned <= known


def test_make_targets_exist() -> None:
    """Wherever a document names one."""
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {
        target
        for path in DOCUMENTS
        for target in re.findall(r"(?:^|`)make ([a-z][\w-]*)", path.read_text("utf-8"), re.MULTILINE)
    }
    assert {"demo", "test", "docs", "figures"} <= named <= targets


def test_extras_exist() -> None:
    """`pip install '.[...]'` names extras of pyproject.toml."""
    named = {extra for path in SITE for extra in re.findall(r"(?:lraee|\.)\[(\w+)\]", path.read_text("utf-8"))}
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert named == {"image", "serve", "export", "ray"}
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in named)


@pytest.mark.parametrize("path", WITH_LINKS, ids=name)
def test_links_lead_to_a_file_and_a_heading(path: Path) -> None:
    """Links inside the project, and pictures; mkdocs checks those of the site once more."""
    for address, anchor in links(path):
        target = (path.parent / address).resolve() if address else path
        assert target.is_file(), f"{name(path)} links to {address}, which does not exist"
        if anchor:
            assert anchor in anchors(target), f"{name(path)} links to {address}#{anchor}, which is no heading"


def test_the_readme_is_read_in_two_minutes() -> None:
    """What is longer belongs to the documentation."""
    readme = (ROOT / "README.md").read_text("utf-8")
    assert len(readme.splitlines()) <= 130
    assert len(readme.split()) <= 900


FIGURE = re.compile(r"\d ?(?:%|ms\b|points\b|MB\b|GB\b)")
MEASURED = re.compile(r"`[^`]*(?:python |make |lraee-)[^`]*`.*20\d\d-\d\d-\d\d", re.DOTALL)


@pytest.mark.parametrize("path", [path for path in SITE if path.name != "photos.md"], ids=name)
def test_a_figure_comes_from_a_record_or_tells_its_command_and_date(path: Path) -> None:
    """cog writes figures from records; any other stands in a section's paragraph with its command and its date."""
    text = re.sub(r"^```.*?^```", "", GENERATED.sub("", path.read_text("utf-8")), flags=re.DOTALL | re.MULTILINE)
    for paragraph in re.split(r"\n\n(?!\|)", text):
        figures = FIGURE.findall(re.sub(r"`[^`]*`|95 %", "", paragraph))
        assert not figures or MEASURED.search(paragraph), f"{name(path)}: {figures} in:\n{paragraph}"
