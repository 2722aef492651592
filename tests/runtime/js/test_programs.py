"""The JavaScript of the documents runs and prints what they say, and so does the program that they bring."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from javascript_package import ROOT, Installed
from markdown_files import fences

import lraee
from lraee.bundle.folder import SHIPPED
from lraee_calibration_data import fashion_mnist_test, open_dataset, photos

PAGE = ROOT / "docs" / "javascript.md"
PROGRAM = ROOT / "docs" / "programs" / "classify.mjs"

SAYS = re.compile(r"^console\.log\(.*\); // (.+)$", re.MULTILINE)
"""A line that prints, and what it prints."""


@pytest.fixture(scope="module")
def folder(npm_package: Installed) -> Path:
    """The package's folder with what the page and the program use."""
    dataset = open_dataset(fashion_mnist_test())
    index = next(i for i, sample in enumerate(dataset.samples) if sample.label == "trousers")
    (npm_package.home / "trousers.png").write_bytes(dataset.read_bytes(index))
    (npm_package.home / "reference.lraee").symlink_to(SHIPPED / "reference.lraee")
    (npm_package.home / "classify.mjs").write_bytes(PROGRAM.read_bytes())
    return npm_package.home


def test_the_page_prints_what_it_says(npm_package: Installed, folder: Path) -> None:
    """All blocks of the page are one program, but for those that need a browser."""
    blocks = [fence.text for fence in fences(PAGE) if fence.language == "js" and fence.needs is None]
    (folder / "page.mjs").write_text("\n".join(blocks), "utf-8")
    said = [line for block in blocks for line in SAYS.findall(block)]
    assert len(said) > 5
    assert npm_package.run("page.mjs").stdout.splitlines() == said


def test_blocks_that_need_more_are_javascript(npm_package: Installed, folder: Path) -> None:
    """Of the page and of the package's README."""
    pages = (PAGE, ROOT / "runtime" / "js" / "README.md")
    marked = [fence for page in pages for fence in fences(page) if fence.language == "js" and fence.needs is not None]
    assert len(marked) == 2
    for fence in marked:
        (folder / "marked.mjs").write_text(fence.text, "utf-8")
        npm_package.run("--check", "marked.mjs")


def test_the_program_answers_as_python(npm_package: Installed, folder: Path) -> None:
    """From the photos' files: sharp decodes the same pixels as Pillow."""
    chosen = sorted(photos().glob("*.jpg"))[::20]
    done = npm_package.run("classify.mjs", str(SHIPPED / "photo-clip.lraee"), *map(str, chosen), "--json", "--top", "2")
    model = lraee.load("photo-clip", threads=1)
    for line, photo in zip(done.stdout.splitlines(), chosen, strict=True):
        met, wanted = json.loads(line), model.classify(photo)
        assert (met["top"][0]["label"], met["exitBlock"]) == (wanted.label, wanted.exit_block)
        assert met["top"][0]["score"] == pytest.approx(wanted.score, abs=1e-3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "x.png"], "'nowhere' is not a folder; wanted a bundle"),
        (["reference.lraee"], "wanted a bundle and at least one photo"),
        (["reference.lraee", "missing.png"], "missing.png cannot be decoded: Input file is missing"),
        (["reference.lraee", "trousers.png", "--policy", "slow"], "slow is no policy; wanted adaptive[=POINT]"),
        (["reference.lraee", "trousers.png", "--top", "0"], "--top is 0, wanted a whole number from 1"),
        (["reference.lraee", "trousers.png", "--labels", "one"], "met 1 labels, 1 different; wanted at least two"),
    ],
)
def test_a_fault_is_told_in_one_line(npm_package: Installed, folder: Path, words: list[str], said: str) -> None:
    """With status 1, and without a trace."""
    done: subprocess.CompletedProcess[str] = npm_package.run("classify.mjs", *words, ok=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(said)


def test_the_program_is_short() -> None:
    """So that it can be read as an example."""
    assert len(PROGRAM.read_text("utf-8").splitlines()) < 120
