"""The project works from a folder of any name and place; `.ci/run` runs the whole suite in one that is odd."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lraee
from lraee_benchmarks.rows.torch_row import advice

ROOT = Path(__file__).resolve().parents[1]

ODD_NAMES = ["lraee é", "a 'b' \"c\" $d"]

EVERYWHERE = """
import numpy
import lraee
print(lraee.__file__)
for memory in ("normal", "low"):
    model = lraee.load("reference", memory=memory)
    model.set_labels(["footwear", "a garment", "bag"])
    print(model.classify(numpy.zeros((28, 28, 3), numpy.uint8)).label in model.labels)
"""


def test_tests_run_in_an_empty_folder_and_not_in_the_checkout() -> None:
    """Else `../lraee` would be the checkout where that is called like the package, and a test of it fail there."""
    assert Path.cwd() != ROOT
    assert list(Path.cwd().iterdir()) == []


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package, in a folder that has nothing else."""
    folder = tmp_path_factory.mktemp("copied")
    shutil.copytree(Path(lraee.__file__).parent, folder / "lraee", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_package_runs_from_a_folder_of_any_name(copied: Path, tmp_path: Path, name: str) -> None:
    """Through a symbolic link, and where the locale says nothing of UTF-8."""
    (tmp_path / name).symlink_to(copied)
    # Python 3.11 starts in no environment whose .pth files the locale cannot read, such as that of this checkout.
    locale = "C" if str(ROOT).isascii() else "C.UTF-8"
    environment = {"PATH": os.environ["PATH"], "LC_ALL": locale, "PYTHONPATH": str(tmp_path / name)}
    environment["ORT_DISABLE_TELEMETRY"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", EVERYWHERE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.stdout.splitlines() == [f"{tmp_path / name}/lraee/__init__.py", "True", "True"], done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_an_environment_that_make_cannot_handle_is_refused_in_one_line() -> None:
    """Else make would take each word of its path for a file of its own, and `make clean` remove it."""
    done = subprocess.run(
        ["make", "-n", "-C", str(ROOT), "VENV=/tmp/my environment", "clean"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if "VENV" in line)
    assert 'VENV is "/tmp/my environment"' in line
    assert "rm " not in done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_a_checkout_that_is_read_only_is_tested_with_everything_else_beside_the_environment() -> None:
    """What checks and documentation write lies below VENV, which may be anywhere."""
    done = subprocess.run(
        ["make", "--dry-run", "--print-data-base", "-C", str(ROOT), "VENV=/var/tmp/lraee", "check"],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in ("RUFF_CACHE_DIR", "MYPY_CACHE_DIR", "SITE", "BIN", "INSTALLED"):
        assert re.search(rf"^{name} := /var/tmp/lraee/", done.stdout, re.MULTILINE), name
    assert "--site-dir /var/tmp/lraee/site" in done.stdout


MADE_UP = """
test:
\t@pwd; cat ../beside/text; printf '%s\\n' "$$TMPDIR"; test -d "$$TMPDIR"; test ! -e untracked; echo "$(VENV)"
\t@echo "7 passed in 1.00s"
\t@exit 7
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository that has nothing but `.ci/run` and a Makefile that tells what it meets, and a folder beside it."""
    folder = tmp_path / "with blank" / "checkout"
    (folder / ".ci").mkdir(parents=True)
    (folder.parent / "beside").mkdir()
    (folder.parent / "beside" / "text").write_text("beside the checkout\n", "utf-8")
    shutil.copyfile(ROOT / ".ci" / "run", folder / ".ci" / "run")
    (folder / "Makefile").write_text(MADE_UP, "utf-8")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "Begin"]):
        subprocess.run([*git, *words], check=True)
    (folder / "untracked").touch()
    return folder


@pytest.mark.skipif(shutil.which("git") is None or shutil.which("make") is None, reason="needs git and make")
def test_continuous_integration_tests_a_clone_called_lraee_with_a_blank(project: Path, tmp_path: Path) -> None:
    """It finds what lies beside the checkout, gives the suite's exit status, and leaves nothing behind."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    # These tests may themselves be run by make, which would then print the folders it enters.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKELEVEL", "MAKEFLAGS", "MFLAGS")
    }
    environment |= {"CI": "true", "TMPDIR": str(temporary)}
    done = subprocess.run(
        ["bash", str(project / ".ci" / "run")],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    place, beside, folder, installed, closing = done.stdout.splitlines()[:5]
    assert Path(place).name == "lraee é"
    assert Path(place).parent.parent == temporary
    assert (beside, closing) == ("beside the checkout", "7 passed in 1.00s")
    assert Path(folder) == Path(place).parent / "tmpé"
    assert Path(installed) == Path(place).parent / "environment"
    assert done.returncode == 2  # that of make, whose recipe failed
    assert "changes that are not committed are not tested" in done.stderr
    assert list(temporary.iterdir()) == []
    assert (project.parent / "beside" / "text").is_file()


@pytest.mark.parametrize(
    ("temporary", "package", "said"),
    [
        ("/tmp/lraee é", "/opt/torch", "set TMPDIR to a folder without a blank"),
        ("/tmp", "/opt/my torch", "install torch below a folder without a blank"),
        ("/tmp", "/opt/é/torch", "install a C++ compiler"),
    ],
)
def test_where_torch_cannot_compile_because_of_a_blank_the_message_says_so(
    temporary: str, package: str, said: str
) -> None:
    """Seen with torch 2.14: its command for the C++ compiler is cut at the first blank, so no compiler would help."""
    assert advice(temporary, package).startswith(said)
