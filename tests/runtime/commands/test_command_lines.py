"""Commands print errors and warnings as lines, with the options that they have and no others."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lraee.cli import app
from lraee.commands.terminal import with_option
from lraee.errors import ImageError
from lraee.reading import Reading, parse_color


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A photo of 100 megapixels, between the limit from which Pillow warns and that from which it refuses."""
    path = tmp_path / "large.png"
    Image.new("1", (10_000, 10_000), 1).save(path)
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """``python -m lraee``, as from a shell."""
    environment = {**os.environ, "COLUMNS": "200", "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", "lraee", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_command_reads_100_megapixels_where_it_is_told_and_hints_at_the_dark(large: Path, tmp_path: Path) -> None:
    """Pillow's own limit, which no option reaches, neither warns nor refuses; a hint is one line."""
    dark = tmp_path / "dark.png"
    Image.fromarray(np.full((30, 30), 900, np.uint16)).save(dark)
    done = run("classify", "reference", large, dark, "--max-pixels", 200_000_000)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"warning: {dark} is nearly black")


def test_the_limit_of_pillow_is_not_warned_of_where_it_still_asks(large: Path, tmp_path: Path) -> None:
    """Inside an icon; the command has its own limit, which was raised."""
    content, icon = large.read_bytes(), tmp_path / "large.ico"
    icon.write_bytes(struct.pack("<HHH4B2H2I", 0, 1, 1, 0, 0, 0, 0, 1, 1, len(content), 22) + content)
    done = run("classify", "reference", icon, "--max-pixels", 200_000_000)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    assert "decompression bomb" not in done.stderr


def test_what_pillow_logs_of_a_damaged_file_is_not_shown(tmp_path: Path) -> None:
    """The error names the file already, in one line."""
    path = tmp_path / "damaged.tif"
    Image.new("RGB", (9, 9)).save(path)
    content = path.read_bytes()
    samples = content.index(struct.pack("<HHI", 277, 3, 1)) + 8
    path.write_bytes(content[:samples] + struct.pack("<H", 47107) + content[samples + 2 :])
    done = run("classify", "reference", path)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {path} is not an image")


def test_a_photo_that_is_too_large_is_refused_with_the_option_that_reads_it(large: Path) -> None:
    """One line, without a warning before it."""
    result = CliRunner().invoke(app, ["classify", "reference", str(large)], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {large} is too large to decode safely: it is 10000 x 10000 pixels")
    assert line.endswith("(max_pixels); scale it down first, or raise --max-pixels")


def test_an_option_is_named_by_the_command_that_has_it() -> None:
    """Skipping files is one of exports; measuring has none that would help."""
    from lraee_toolchain.cli import OPTIONS

    error = ImageError("damaged; remove the file", setting="unreadable")
    assert with_option(error, OPTIONS) == "damaged; remove the file, or pass --unreadable skip"
    assert with_option(error, {}) == "damaged; remove the file"


def test_transparency_lies_on_the_background_that_is_asked_for(tmp_path: Path) -> None:
    """A white shirt cut out, stored over black: without a background it is what open_clip sees."""
    path = tmp_path / "cut-out.png"
    Image.new("RGBA", (40, 40), (0, 0, 0, 0)).save(path)
    printed = {
        background: CliRunner().invoke(app, ["classify", "reference", str(path), *options]).stdout
        for background, options in {
            "none": [],
            "black": ["--background", "black"],
            "white": ["--background", "white"],
            "#FFFFFF": ["--background", "#FFFFFF"],
        }.items()
    }
    assert printed["none"] == printed["black"] != printed["white"] == printed["#FFFFFF"]
    refused = CliRunner().invoke(app, ["classify", "reference", str(path), "--background", "sky"])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "the background is 'sky', wanted white, black, or a colour such as #ff8000" in refused.stderr


@pytest.mark.parametrize("background", ["white", (1, 2), (1, 2, 256), (1, 2, -1), (1.0, 2, 3), [1, 2, 3], True])
def test_a_background_is_three_levels(background: object) -> None:
    """Names are for the command line."""
    with pytest.raises(ImageError, match="wanted None or red, green and blue of 0 to 255"):
        Reading(background=background)  # type: ignore[arg-type] # on purpose


@pytest.mark.parametrize(
    ("text", "color"),
    [("white", (255, 255, 255)), ("Black", (0, 0, 0)), ("#ff8000", (255, 128, 0)), ("0a0b0c", (10, 11, 12))],
)
def test_a_colour_may_be_typed(text: str, color: tuple[int, int, int]) -> None:
    """It is typed by name or in hexadecimal."""
    assert parse_color(text) == color
