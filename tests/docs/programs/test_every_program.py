"""Every program is short and says in one line what is wrong, and photos may have names that are not UTF-8."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from started_programs import COFFEE, PROGRAMS, Run


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS refuses names that are not UTF-8")
def test_names_that_are_not_utf8_are_sorted_and_found(run: Run, tmp_path: Path) -> None:
    """As an old disk or camera wrote them."""
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / "photos").mkdir()
    shutil.copy(COFFEE, tmp_path / "photos" / name)
    for _ in range(2):  # the index is written and read
        assert run("search_photos.py", "photos", "espresso").out[0].endswith(f"  photos/{name}")
    assert run("sort_photos.py", "photos", "sorted").status == 0
    assert (tmp_path / "sorted" / "espresso" / name).is_file()


@pytest.mark.parametrize("program", ["sort_photos.py", "search_photos.py", "camera.py"])
def test_a_program_is_short_and_says_what_is_wrong_in_one_line(run: Run, program: str, photos: Path) -> None:
    """Fewer than 120 lines, and no traceback for a bundle that is not there."""
    assert len((PROGRAMS / program).read_text("utf-8").splitlines()) < 120
    words = {"sort_photos.py": ["sorted"], "search_photos.py": [], "camera.py": []}[program]
    done = run(program, "photos", *words, "--bundle", "missing.lraee")
    assert done.status in (1, 2)
    assert "missing.lraee is not a folder; wanted a bundle" in done.err.splitlines()[-1]
