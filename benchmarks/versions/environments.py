"""Interpreters of this machine, environments made with them, and the lowest versions that they can install."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

OLDEST = (3, 11)
"""Of pyproject.toml's requires-python."""

_TELLS = (
    "import sys, venv; print(sys.implementation.name, *sys.version_info[:3], sys.version_info.releaselevel, "
    "getattr(sys, '_base_executable', sys.executable))"
)


class VersionsError(RuntimeError):
    """Something that a run needs failed; the message says what."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A Python interpreter of this machine."""

    path: Path
    """Its program, outside of any environment."""
    version: str
    """Such as 3.11.7."""

    @property
    def minor(self) -> str:
        """Give the version, such as 3.11."""
        return self.version.rpartition(".")[0]


def candidates(given: Sequence[Path]) -> Iterator[Path]:
    """Programs that may be a Python: those given, the one that runs this, PATH, pyenv's and uv's folders."""
    yield from given
    yield Path(sys.executable)
    home = Path.home()
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    folders += sorted((Path(os.environ.get("PYENV_ROOT", home / ".pyenv")) / "versions").glob("*/bin"))
    folders += sorted((home / ".local/share/uv/python").glob("*/bin"))
    for folder in folders:
        try:
            found = [path for path in folder.iterdir() if re.fullmatch(r"python3\.[0-9]+", path.name)]
        except OSError:
            continue
        yield from sorted(found)


def interpreters(given: Sequence[Path]) -> list[Interpreter]:
    """The first working CPython of each minor version from 3.11 on that can make environments, oldest first.

    Raises:
        VersionsError: one of those given is none.
    """
    found: dict[tuple[int, int], Interpreter] = {}
    for path in candidates(given):
        done = subprocess.run([path, "-I", "-c", _TELLS], capture_output=True, encoding="utf-8", check=False)
        words = done.stdout.strip().split(" ", 5)
        if done.returncode != 0 or len(words) != 6 or words[0] != "cpython" or words[4] != "final":
            if path in given:
                raise VersionsError(f"{path} is no released CPython with the module venv")
            continue  # a shim of pyenv for a version that is not chosen, another implementation
        major, minor = int(words[1]), int(words[2])
        if (major, minor) >= OLDEST:
            found.setdefault((major, minor), Interpreter(Path(words[5]), ".".join(words[1:4])))
    return [found[key] for key in sorted(found)]


def claims(project: Path) -> dict[str, dict[str, str]]:
    """Lower bounds of pyproject.toml, name and version: of the base dependencies and of two extras."""
    table = tomllib.loads(project.read_text("utf-8"))["project"]
    extras = table["optional-dependencies"]
    lists = {"base": table["dependencies"], "image": extras["image"], "export": extras["export"]}
    return {stage: {each.name: lower_bound(each) for each in map(Requirement, lists[stage])} for stage in lists}


def lower_bound(requirement: Requirement) -> str:
    """Find the version after ``>=``.

    >>> lower_bound(Requirement("numpy>=1.26"))
    '1.26'
    """
    (bound,) = (each.version for each in requirement.specifier if each.operator == ">=")
    return bound


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment that holds nothing but what was installed into it."""

    folder: Path
    interpreter: Interpreter

    @property
    def python(self) -> Path:
        """Give the path of its interpreter."""
        return self.folder / "bin" / "python"

    @staticmethod
    def create(interpreter: Interpreter, folder: Path) -> Environment:
        """Make one, in place of what lies there.

        Raises:
            VersionsError: the interpreter cannot.
        """
        shutil.rmtree(folder, ignore_errors=True)
        command = [str(interpreter.path), "-m", "venv", "--without-pip", str(folder)]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if done.returncode != 0:
            raise VersionsError(f"{interpreter.path} cannot make an environment: {last_lines(done)}")
        return Environment(folder, interpreter)

    def pip(self, *words: str) -> str:
        """Run this environment's pip, which is that of the interpreter that runs this, on it; what it prints.

        Raises:
            VersionsError: it failed.
        """
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", *words]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        if done.returncode != 0:
            raise VersionsError(f"pip {words[0]} failed: {last_lines(done)}")
        return done.stdout

    def installed(self) -> dict[str, str]:
        """Name, as pip has it, and version of all that is installed."""
        listed = json.loads(self.pip("list", "--format", "json"))
        return {canonicalize_name(each["name"]): each["version"] for each in listed}

    def releases(self, name: str) -> list[Version]:
        """Releases of a package that have a wheel for this interpreter, lowest first."""
        answer = json.loads(self.pip("index", "versions", name, "--only-binary=:all:", "--json"))
        return sorted(version for version in map(Version, answer["versions"]) if version.local is None)

    def metadata(self, pins: Mapping[str, Version]) -> dict[str, dict[str, Any]]:
        """The metadata of released packages, by name; nothing is installed."""
        words = [f"{name}=={version}" for name, version in pins.items()]
        options = ["--dry-run", "--no-deps", "--ignore-installed", "--only-binary=:all:", "--quiet", "--report", "-"]
        report = json.loads(self.pip("install", *options, *words))
        return {canonicalize_name(each["metadata"]["name"]): each["metadata"] for each in report["install"]}


def last_lines(done: subprocess.CompletedProcess[str], count: int = 4) -> str:
    """The end of what a program said on stderr, in one line, without pip's warnings."""
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip() and not line.startswith("WARNING:")]
    return " | ".join(lines[-count:]) or "no message"


def lowest(environment: Environment, bounds: Mapping[str, str]) -> tuple[dict[str, Version], dict[str, str]]:
    """The lowest releases that the bounds allow together, and why some are higher than their bound.

    Raised is what has no wheel for this interpreter, and what another of these packages, at its lowest, does not take.

    Raises:
        VersionsError: there is none.
    """
    releases = {name: environment.releases(name) for name in bounds}
    pins: dict[str, Version] = {}
    reasons: dict[str, str] = {}
    for name, bound in bounds.items():
        allowed = [version for version in releases[name] if version >= Version(bound) and not version.is_prerelease]
        if not allowed:
            raise VersionsError(f"no release of {name} from {bound} on has a wheel for this interpreter")
        pins[name] = allowed[0]
        if allowed[0].release[: len(Version(bound).release)] != Version(bound).release:
            reasons[name] = f"the lowest with a wheel for this interpreter is {allowed[0]}"
    while raised := first_conflict(environment.metadata(pins), pins, environment.interpreter):
        name, requirement, owner = raised
        allowed = [version for version in releases[name] if version in requirement.specifier and version >= pins[name]]
        if not allowed:
            raise VersionsError(
                f"{owner} {pins[owner]} needs {requirement}, and no such release is {pins[name]} or later"
            )
        pins[name] = allowed[0]
        reasons[name] = f"{owner} {pins[owner]} needs {name}{requirement.specifier}"
    return pins, reasons


def first_conflict(
    metadata: Mapping[str, Mapping[str, Any]], pins: Mapping[str, Version], interpreter: Interpreter
) -> tuple[str, Requirement, str] | None:
    """A pinned package that another one does not take as it is pinned: its name, what is wanted, and who wants it."""
    by_name = {canonicalize_name(name): name for name in pins}
    there = {"python_version": interpreter.minor, "python_full_version": interpreter.version, "extra": ""}
    for owner, found in metadata.items():
        for requirement in map(Requirement, found.get("requires_dist", [])):
            name = by_name.get(canonicalize_name(requirement.name))
            if name is None or (requirement.marker is not None and not requirement.marker.evaluate(there)):
                continue
            if pins[name] not in requirement.specifier:
                return name, requirement, by_name[owner]
    return None
