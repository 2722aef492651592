"""The ranges of versions that pyproject.toml claims are those that ran, and the page shows what is recorded."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lraee_benchmarks.output_files import with_block

PROJECT = Path(__file__).resolve().parents[3]
FOLDER = PROJECT / "benchmarks" / "versions"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """The modules of ``benchmarks/versions``, as its command sees them."""
    names = ("environments", "table", "versions")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield {name: importlib.import_module(name) for name in names}
    for name in names:
        del sys.modules[name]


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """What ``make versions VERSIONS=--record`` wrote."""
    record: dict[str, Any] = json.loads((FOLDER / "recorded.json").read_text("utf-8"))
    return record


def test_the_claims_are_those_that_ran(scripts: dict[str, ModuleType], recorded: dict[str, Any]) -> None:
    """A bound that changes is run again before it is claimed."""
    assert scripts["environments"].claims(PROJECT / "pyproject.toml") == recorded["claims"]


def test_the_lowest_and_the_newest_passed_on_every_python(
    scripts: dict[str, ModuleType], recorded: dict[str, Any]
) -> None:
    """Both ends of every range ran the shipped bundle, image files and an export."""
    versions = scripts["versions"]
    pythons = {name.partition(" ")[0] for name in recorded["runs"]}
    assert "3.11" in pythons
    assert set(recorded["runs"]) == {f"{python} {kind}" for python in pythons for kind in versions.KINDS}
    for name, run in recorded["runs"].items():
        assert not run["failed"], f"{name}: {run['failed']}"
        assert set(run["versions"]) == set(versions.STAGES)


def test_the_page_shows_what_is_recorded(scripts: dict[str, ModuleType], recorded: dict[str, Any]) -> None:
    """The table in the folder's README is drawn from the record."""
    page = (FOLDER / "README.md").read_text("utf-8")
    assert with_block(page, "versions", "\n".join(scripts["table"].outcome_rows(recorded))) == page
