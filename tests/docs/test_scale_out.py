"""The commands of the page on scale-out do what it says, in a fresh environment and an empty folder with photos."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from markdown_files import ROOT, command_lines, fences

from lraee_calibration_data import photos

pytest.importorskip("ray", reason="the extra ray is not installed; not every Python has wheels of Ray")

PAGE = ROOT / "docs" / "scale-out.md"
COMMAND = ["python", "-m", "lraee_toolchain.ray"]


def test_the_commands_of_the_page_run_and_its_table_names_the_columns(tmp_path: Path) -> None:
    """With no variable of this environment but the path, and a home of their own that stays empty."""
    import pyarrow.parquet as pq

    (tmp_path / "home").mkdir()
    folder = tmp_path / "work"
    (folder / "photos").mkdir(parents=True)
    for path in sorted(photos().glob("kodak-*.jpg"))[:3]:
        shutil.copy(path, folder / "photos")
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "ORT_DISABLE_TELEMETRY": "1"}
    lines = [words for fence in fences(PAGE) for words in command_lines(fence.text) if words[:3] == COMMAND]
    assert [words[3] for words in lines] == ["classify", "embed", "features"]
    columns = set()
    for words in lines:
        done = subprocess.run(
            [sys.executable, *words[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "3 images in 1 shards; computed 3 in" in done.stdout
        assert done.stderr == ""
        table = pq.read_table(folder / words[words.index("-o") + 1])
        assert table.column("name").to_pylist() == sorted(path.name for path in (folder / "photos").iterdir())
        columns |= set(table.column_names)
    text = PAGE.read_text("utf-8")
    assert all(f"`{column}`" in text for column in columns - {"tokens_08"})
    assert not list((tmp_path / "home").iterdir())
