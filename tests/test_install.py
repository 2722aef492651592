"""How lraee is installed is true in every document and every message; `test_wheel` runs the commands."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path
from typing import get_args

import install_commands
import pytest

from lraee.install import Extra, install_command

ROOT = Path(__file__).resolve().parents[1]


DOCUMENTS = install_commands.documents()
MARKED = [path for path in DOCUMENTS if "<!-- install:" in path.read_text("utf-8")]


def targets(text: str) -> list[str]:
    """What the install commands of a document ask pip for, where that is lraee."""
    found = re.findall(r"\bpip install ([^`\n]+)", text)
    words = [word for command in found for word in shlex.split(command, comments=True) if not word.startswith("-")]
    return [word for word in words if re.search(r"^\.(\[|$)|^lraee(\[|$)|lraee-[^/]*\.whl", word)]


@pytest.mark.parametrize("path", MARKED, ids=lambda path: path.name)
def test_a_document_says_how_to_install_the_package_as_it_is(path: Path) -> None:
    """`PUBLISHED` was switched, or a version raised: `python tests/install_commands.py` writes the documents."""
    assert path.read_text("utf-8") == install_commands.written(path.read_text("utf-8"))


def test_every_marked_place_is_in_a_document() -> None:
    """And every text has its place: none of both was forgotten."""
    found = [name for path in DOCUMENTS for name in install_commands.marked(path.read_text("utf-8"))]
    assert sorted(found) == sorted(install_commands.TEXTS)


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_lraee_is_fetched_from_an_index_only_when_it_is_there(path: Path, published: bool) -> None:
    """Until then a document installs a checkout or a wheel, and by name only adds extras to what it installed."""
    asked = targets(install_commands.written(path.read_text("utf-8"), published=published))
    if path.name in ("README.md", "raspberry-pi.md") and path in MARKED:
        assert asked, "the document that tells how to install has no command"
    if not published:
        assert "lraee" not in asked
        by_name = [target.startswith("lraee[") for target in asked]
        assert by_name == sorted(by_name), f"{asked}: a name that no index has, before anything was installed"
    elif path in MARKED:
        assert all(target.startswith("lraee") for target in asked)


def test_switching_there_and_back_changes_nothing() -> None:
    """The one variable decides; what stands in a document before does not matter."""
    for path in MARKED:
        text = path.read_text("utf-8")
        other = install_commands.written(text, published=not install_commands.PUBLISHED)
        assert other != text
        assert install_commands.written(other) == text


def test_the_extras_are_those_of_the_project() -> None:
    """A message cannot name one that pip does not know."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert set(get_args(Extra)) == set(project["optional-dependencies"])


def test_messages_take_their_install_command_from_one_place() -> None:
    """No module but `lraee.install` spells out how lraee is installed."""
    found = []
    for package in sorted(ROOT.glob("*/lraee*/__init__.py")):
        for path in sorted(package.parent.rglob("*.py")):
            if "pip" not in (text := path.read_text("utf-8")):
                continue
            tree = ast.parse(text)
            documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            found += [
                path.name
                for node in ast.walk(tree)
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
                if re.search(r"pip3? install\W*(lraee|\.)", node.value)
            ]
    assert found == ["install.py"]
    assert install_command("image") == "pip install 'lraee[image]'"
