"""Hooks and workflows call what `make` runs, so that nothing is checked in two ways."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_files import ROOT

MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def read(path: Path) -> dict[Any, Any]:
    """A YAML file."""
    found: dict[Any, Any] = yaml.safe_load(path.read_text("utf-8"))
    return found


def test_the_hooks_call_each_part_of_make_check() -> None:
    """All of them and nothing else, from this machine alone."""
    (local,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    called = [hook["entry"] for hook in local["hooks"]]
    parts = re.findall(r"^check: (.+)$", MAKEFILE, re.MULTILINE)[0].split()
    assert called == [f"make {part}" for part in parts]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_targets_of_make(path: Path) -> None:
    """And nothing that a contributor could not run."""
    steps = [step for job in read(path)["jobs"].values() for step in job["steps"]]
    lines = [step["run"] for step in steps if "run" in step]
    assert lines
    for line in lines:
        found = re.fullmatch(r"make ([a-z][\w-]*)(?: [A-Z]+=\S+)*", line)
        assert found, f"{path.name} runs {line!r}, which is no target of make"
        assert found[1] in TARGETS


def test_the_tests_run_on_linux_and_macos_and_on_two_kinds_of_cpu() -> None:
    """The runners of the test job."""
    jobs = read(ROOT / ".github" / "workflows" / "check.yml")["jobs"]
    runners = {row["runner"] for row in jobs["test"]["strategy"]["matrix"]["include"]}
    assert runners == {"ubuntu-24.04", "ubuntu-24.04-arm", "macos-15"}


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="needs actionlint on the path")
def test_actionlint_finds_nothing() -> None:
    """In any workflow."""
    done = subprocess.run(["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml")), ids=lambda path: path.name
)
def test_an_issue_asks_for_what_a_fault_or_a_figure_needs(path: Path) -> None:
    """Versions and the machine from our own commands, not from memory."""
    form = read(path)
    assert {"name", "description", "body"} <= form.keys()
    assert "python -m lraee doctor" in path.read_text("utf-8") or "lraee-bench" in path.read_text("utf-8")
    assert any(part["type"] == "textarea" for part in form["body"])
