"""`make versions` runs both ends of every range that pyproject.toml claims, and says what it could not run."""

from __future__ import annotations

import importlib
import json
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "benchmarks" / "versions"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The modules of ``benchmarks/versions``, as its command sees them."""
    names = ("environments", "table", "versions")
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in names:
        sys.modules.pop(name, None)
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for name in names:
        del sys.modules[name]


class Index:
    """An environment of Python 3.11 and an index of packages, without either."""

    interpreter = SimpleNamespace(minor="3.11", version="3.11.7")

    def __init__(self, releases: Mapping[str, str], needs: Mapping[str, list[str]] | None = None) -> None:
        self._releases, self._needs = releases, needs or {}

    def releases(self, name: str) -> list[Version]:
        """Those with a wheel, lowest first."""
        return sorted(map(Version, self._releases[name].split()))

    def metadata(self, pins: Mapping[str, Version]) -> dict[str, dict[str, Any]]:
        """What each package needs."""
        return {name.lower(): {"requires_dist": self._needs.get(name, [])} for name in pins}


def test_bounds_are_those_of_the_project(scripts: SimpleNamespace) -> None:
    """Every dependency of the base and of both extras has one, so none escapes the command."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    found = scripts.environments.claims(ROOT / "pyproject.toml")
    wanted = {"base": project["dependencies"], "image": extras["image"], "export": extras["export"]}
    for stage, entries in wanted.items():
        assert [f"{name}>={bound}" for name, bound in found[stage].items()] == [
            entry.partition(";")[0].strip() for entry in entries
        ]


def test_the_lowest_release_above_a_bound_is_taken(scripts: SimpleNamespace) -> None:
    """A prerelease is none; one that lies higher than its bound says why."""
    index = Index({"a": "1.24 1.25rc1 1.25.1 1.26", "b": "2.2 2.3"})
    pins, reasons = scripts.environments.lowest(index, {"a": "1.25", "b": "2.0"})
    assert pins == {"a": Version("1.25.1"), "b": Version("2.2")}
    assert reasons == {"b": "the lowest with a wheel for this interpreter is 2.2"}
    with pytest.raises(scripts.environments.VersionsError, match="no release of a from 3 on has a wheel"):
        scripts.environments.lowest(index, {"a": "3"})


def test_what_another_dependency_does_not_take_is_raised(scripts: SimpleNamespace) -> None:
    """As pip would, with the reason; a requirement of another Python does not count."""
    needs = {"a": ["b>=2.3", "b>=9; python_version < '3.11'"]}
    index = Index({"a": "1.0 1.1", "b": "2.0 2.2 2.3.1 2.4"}, needs)
    pins, reasons = scripts.environments.lowest(index, {"a": "1.0", "b": "2.0"})
    assert pins == {"a": Version("1.0"), "b": Version("2.3.1")}
    assert reasons == {"b": "a 1.0 needs b>=2.3"}
    with pytest.raises(scripts.environments.VersionsError, match=r"a 1\.0 needs b<2, and no such release is 2\.0 or"):
        scripts.environments.lowest(Index({"a": "1.0", "b": "2.0"}, {"a": ["b<2"]}), {"a": "1.0", "b": "2.0"})


def test_answers_of_other_versions_must_be_nearly_the_same(scripts: SimpleNamespace) -> None:
    """97 labels of 100, in a list or as a share of an export."""
    wanted = {"full": ["bag"] * 100, "equal_labels": 100}
    scripts.versions.judge({"full": ["bag"] * 97 + ["coat"] * 3, "equal_labels": 97}, wanted)
    for answers in (
        {"full": ["bag"] * 96 + ["coat"] * 4, "equal_labels": 100},
        {"full": ["bag"] * 100, "equal_labels": 96},
    ):
        with pytest.raises(scripts.versions.VersionsError, match="96% are as with this environment's versions"):
            scripts.versions.judge(answers, wanted)


def test_interpreters_are_found_and_what_is_none_is_refused(
    scripts: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The one that runs this is there; a program that was given and is no Python is an error."""
    for name in ("PATH", "PYENV_ROOT"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    (found,) = scripts.environments.interpreters([])
    assert found.version == ".".join(map(str, sys.version_info[:3]))
    (tmp_path / "python3.99").write_text("#!/bin/sh\nexit 1\n", "utf-8")
    (tmp_path / "python3.99").chmod(0o755)
    assert scripts.environments.interpreters([]) == [found]
    with pytest.raises(scripts.environments.VersionsError, match="is no released CPython"):
        scripts.environments.interpreters([tmp_path / "python3.99"])


def outcome(**failed: str) -> dict[str, Any]:
    """What one run gave, with what failed in it."""
    versions = {"base": {"numpy": "1.26.0"}, "image": {"Pillow": "9.5"}, "export": {"numpy": "2.0", "torch": "2.6"}}
    return {"python": "3.11.7", "versions": versions, "raised": {"numpy": "torch 2.6 needs numpy>=1.26"}} | {
        "failed": failed
    }


CLAIMS = {"base": {"numpy": "1.25"}, "image": {"Pillow": "9.5"}, "export": {"torch": "2.6", "numpy": "1.25"}}


def test_the_table_names_what_ran_what_failed_and_what_was_missing(scripts: SimpleNamespace) -> None:
    """A row for each dependency and each stage; a remark for whatever is not as it was claimed."""
    runs = {"3.11 lowest": outcome(export="torch cannot be imported"), "3.11 newest": outcome()}
    lines = "\n".join(scripts.table.outcome_rows({"claims": CLAIMS, "missing": ["3.13"], "runs": runs})).splitlines()
    assert lines[0] == "|  | claimed | 3.11, lowest | 3.11, newest |"
    assert "| `numpy` | >=1.25 | 1.26.0 *, export 2.0 | 1.26.0 *, export 2.0 |" in lines
    assert "| `Pillow` | >=9.5 | 9.5 | 9.5 |" in lines
    assert "| export of the reference |  | failed | passed |" in lines
    assert "- Python 3.11 was 3.11.7." in lines
    assert "- Python 3.13: not run, no interpreter was there." in lines
    assert "- \\* Python 3.11, `numpy`: torch 2.6 needs numpy>=1.26." in lines
    assert "- 3.11 lowest, export of the reference: torch cannot be imported" in lines


@pytest.mark.parametrize("failed", [{}, {"base": "it ended"}])
def test_the_command_prints_what_is_missing_and_fails_where_a_run_fails(
    scripts: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    failed: dict[str, str],
) -> None:
    """Every interpreter is run with both ends, and what ran can be recorded beside the table."""
    (tmp_path / "README.md").write_text("<!-- versions -->\n\n<!-- /versions -->\n", "utf-8")
    ran = []

    def run(interpreter: Any, kind: str, *_: object) -> dict[str, Any]:
        ran.append((interpreter.minor, kind))
        return outcome(**(failed if kind == "lowest" else {}))

    there = [scripts.environments.Interpreter(Path(sys.executable), version) for version in ("3.11.7", "3.13.5")]
    for name, value in {
        "interpreters": lambda given: there,
        "check": lambda python, stage: {},
        "build_wheel": lambda folder: folder / "lraee.whl",
        "run": run,
        "HERE": tmp_path,
        "RECORD": tmp_path / "recorded.json",
    }.items():
        monkeypatch.setattr(scripts.versions, name, value)
    monkeypatch.setattr(sys, "argv", ["versions.py", "--record", "--root", str(tmp_path / "root")])
    assert scripts.versions.main() == (1 if failed else 0)
    assert ran == [("3.11", "lowest"), ("3.11", "newest"), ("3.13", "lowest"), ("3.13", "newest")]
    printed = capsys.readouterr().out.splitlines()
    for minor in ("3.12", "3.14"):
        assert f"{minor}: no interpreter found; give one with --python" in printed
    assert json.loads((tmp_path / "recorded.json").read_text("utf-8"))["missing"] == ["3.12", "3.14"]
    page = (tmp_path / "README.md").read_text("utf-8")
    assert "- Python 3.12: not run, no interpreter was there." in page
    assert ("| shipped bundle |  | failed | passed | failed | passed |" in page) is bool(failed)
