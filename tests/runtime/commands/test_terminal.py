"""What the commands print, whatever stdout and stderr are: a full disk, a reader that went away, an old encoding."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.table import Table

from lraee.cli import main
from lraee.commands.terminal import printable, show, tab_separated
from lraee_calibration_data import fashion_mnist_test, open_dataset

FULL_DISK = Path("/dev/full")
INFO = [sys.executable, "-m", "lraee", "info", "reference"]
BENCH = [sys.executable, "-c", "from lraee_benchmarks.cli import main; main()", "--help"]
EXPORT = [sys.executable, "-m", "lraee_toolchain.cli", "--help"]

COMMANDS = pytest.mark.parametrize("command", [INFO, BENCH, EXPORT], ids=["lraee", "lraee-bench", "lraee-export"])


@pytest.fixture(scope="module")
def image() -> bytes:
    """One of the shipped test images, encoded."""
    return open_dataset(fashion_mnist_test()).read_bytes(0)


def run(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """One command to its end, with what it said on stderr."""
    return subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False, **options)


@COMMANDS
@pytest.mark.skipif(not FULL_DISK.exists(), reason="there is no device that is always full")
def test_a_full_output_is_one_line_and_status_1(command: list[str]) -> None:
    """No traceback of Python, none from the end of the process either."""
    with FULL_DISK.open("w") as full:
        done = run(command, stdout=full)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "the output cannot be written (No space left on device)" in done.stderr


@pytest.mark.parametrize("command", [INFO, EXPORT], ids=["lraee", "lraee-export"])
def test_a_reader_that_went_away_ends_a_command_silently(command: list[str]) -> None:
    """As `| head -1` does; shells show 141 of programs that SIGPIPE ended."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = run(command, stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_an_output_that_was_closed_before_is_one_line() -> None:
    """And no other file takes its place, to be written into."""
    done = run(["sh", "-c", 'exec "$@" >&-', "sh", *INFO])
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "the output cannot be written (Bad file descriptor)" in done.stderr


@pytest.mark.skipif(not FULL_DISK.exists(), reason="there is no device that is always full")
def test_errors_that_nobody_can_read_change_nothing_else() -> None:
    """The exit status is that of the error."""
    with FULL_DISK.open("w") as full:
        done = subprocess.run([*INFO[:-1], "nowhere"], stderr=full, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, done.stdout) == (1, b"")


@pytest.mark.skipif(not FULL_DISK.exists(), reason="there is no device that is always full")
def test_a_warning_that_nobody_can_read_costs_no_answer(tmp_path: Path) -> None:
    """Nor does it change the exit status."""
    Image.fromarray(np.full((30, 30), 900, np.uint16)).save(tmp_path / "dark.png")
    command = [sys.executable, "-m", "lraee", "classify", "reference", str(tmp_path / "dark.png")]
    heard = run(command, stdout=subprocess.PIPE)
    assert heard.stderr.startswith("warning: ")
    with FULL_DISK.open("w") as full:
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, heard.stdout)


def test_characters_that_the_output_lacks_are_printed_as_escapes(tmp_path: Path, image: bytes) -> None:
    """In names of files and in labels."""
    (tmp_path / "日本.png").write_bytes(b"none")
    labels = tmp_path / "labels.txt"
    labels.write_text("boot 靴\nbag 鞄\n", "utf-8")
    command = [sys.executable, "-m", "lraee", "classify", "reference", "-", "日本.png", "--labels", str(labels)]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(command, input=image, capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert any(word in done.stdout.decode("ascii") for word in ("\\u9774", "\\u9784"))
    assert done.stderr.decode("ascii").startswith("error: \\u65e5\\u672c.png ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("trousers [1].png", "trousers [1].png"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("two\nlines\r\tand a tab", "two\\nlines\\r\\tand a tab"),
        ("caf\u00e9 \U0001f469\u200d\U0001f467 \u3000\u00a0", "caf\u00e9 \U0001f469\u200d\U0001f467 \u3000\u00a0"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("not UTF-8: \udcff", "not UTF-8: \\udcff"),
        ("\x9b31m", "\\x9b31m"),
    ],
    ids=["plain", "escape", "line ends", "joined and wide", "direction", "surrogate", "C1"],
)
def test_what_would_act_on_a_terminal_is_printed_as_an_escape(text: str, printed: str) -> None:
    """Blanks of any language and joined pictures stay."""
    assert printable(text) == printed


@given(st.text(st.characters(), max_size=20))
def test_printable_text_is_one_line_without_control_characters(text: str) -> None:
    """Whatever a name is made of."""
    assert len(printable(text).splitlines()) <= 1
    assert not any(ord(one) < 32 or 127 <= ord(one) < 160 for one in printable(text))
    assert len(tab_separated([text, text]).split("\t")) == 2


def test_nothing_is_wrapped_where_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """However long a row is, and with escapes in its cells printed as text."""
    table = Table(box=None)
    table.add_column("head")
    table.add_row("x" * 3000)
    show(table, "\x1b[31m" + "y" * 3000)
    lines = capsys.readouterr().out.splitlines()
    assert [len(line) for line in lines[1:]] == [3002 - 1, 3000 + len("\\x1b[31m")]
    assert "\x1b" not in "".join(lines)


def test_a_terminal_is_not_wider_than_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor than what is asked for."""
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    for widest, wanted in ((None, 40), (30, 30), (100, 40)):
        show("y" * 95, widest=widest)
        assert max(map(len, capsys.readouterr().out.splitlines())) == wanted


def test_wrong_usage_is_one_line_that_cannot_act_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It repeats what was typed, or what a shell put in the place of a `*`; it is not wrapped either."""
    name = f"evil\x1b[31m{'n' * 200}.png"
    monkeypatch.setattr(sys, "argv", ["lraee", "info", "reference", name])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "\x1b" not in printed
    assert f"evil\\x1b[31m{'n' * 200}.png" in printed.splitlines()[-1]
