"""An object in another process: its methods answer here, and its end is an error and no silence."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from lraee.errors import BundleError, DataError
from lraee_benchmarks.results.model import Interval
from lraee_benchmarks.running.process import Remote


def test_objects_and_arrays_pass_as_they_are() -> None:
    """Each answer is of the type that the method gives."""
    with Remote("a test", np.arange(6.0)) as remote:
        reshaped = remote.ask(np.ndarray.reshape, (2, 3))
        assert reshaped.shape == (2, 3)
        assert remote.ask(np.ndarray.sum) == 15.0
    with Remote("a test", Interval(low=1, high=2)) as remote:
        assert remote.ask(type) is Interval
        assert remote.ask(repr) == "Interval(low=1, high=2)"


def test_what_a_library_prints_is_no_answer() -> None:
    """It goes where errors go."""
    with Remote("a test", "to nobody") as remote:
        assert remote.ask(print) is None
        assert remote.ask(os.fspath) == "to nobody"


@pytest.mark.parametrize("status", [-signal.SIGKILL, -signal.SIGSEGV])
def test_a_process_that_is_killed_says_by_which_signal(status: int) -> None:
    """As by the system where memory is short; asking again is the same error."""
    with Remote("a test", -status) as remote:
        for _ in range(2):
            with pytest.raises(BundleError, match=f"^a test ended with status {status}: "):
                remote.ask(signal.raise_signal)


def test_a_process_may_be_ended_twice() -> None:
    """Once when it is of no more use, and again with its block."""
    with Remote("a test", 1) as remote:
        assert remote.ask(int.bit_length) == 1
        remote.stop()


def test_an_exception_that_nobody_meant_is_quoted() -> None:
    """Its last line says what it was."""
    with (
        Remote("a test", "no number") as remote,
        pytest.raises(BundleError, match=r"^a test ended with status 1: ValueError: could not convert .*'no number'"),
    ):
        remote.ask(float)


def test_a_process_has_the_variables_it_is_given() -> None:
    """Besides those of this one."""
    with Remote("a test", "LRAEE_TEST", environment={"LRAEE_TEST": "there"}) as remote:
        assert remote.ask(os.getenv) == "there"


def test_without_a_folder_for_temporary_files_nothing_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where TMPDIR is full or read-only."""
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    with pytest.raises(DataError, match=r"no temporary file can be made .*; set TMPDIR"):
        Remote("a test", None)


def test_a_program_without_a_guard_runs_once(tmp_path: Path) -> None:
    """The main module of the program that asks is not imported by the process."""
    program = tmp_path / "program.py"
    program.write_text(
        "from lraee_benchmarks.running.process import Remote\n"
        "with Remote('a test', 'answer') as remote:\n"
        "    print(remote.ask(str.upper))\n"
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ANSWER\n", "")
