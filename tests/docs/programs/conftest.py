"""Runs the programs to start from, on shipped photos with awkward names and on the images of the reference.

They run in this process, and share sessions with the test before, where nothing has to be killed. `test_wheel` runs the
commands of the page in an environment of their own.
"""

from __future__ import annotations

import functools
import os
import runpy
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from started_programs import CAT, COFFEE, LIGHTHOUSE, OTHER_LIGHTHOUSE, PENGUIN, PROGRAMS, Done, Run

import lraee
from lraee_calibration_data import fashion_mnist_test, open_dataset


@functools.cache
def loaded(bundle: str, settings: frozenset[tuple[str, Any]]) -> lraee.Model:
    """A model whose sessions are kept for the next program."""
    return real_load(bundle, **dict(settings))


real_load = lraee.load


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfdbinary: Any, tmp_path: Path) -> Iterator[Run]:
    """Run a program in an empty folder, as a command line would."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lraee, "load", lambda bundle, **settings: loaded(bundle, frozenset(settings.items())))
    before = signal.getsignal(signal.SIGTERM)

    def call(program: str, *words: str | Path) -> Done:
        monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
        status: object = 0
        try:
            runpy.run_path(str(PROGRAMS / program), run_name="__main__")
        except SystemExit as end:
            status = end.code
        sys.stdout.flush()
        out, err = (os.fsdecode(text) for text in capfdbinary.readouterr())
        if isinstance(status, str):
            status, err = 1, f"{err}{status}\n"
        assert isinstance(status, int | None)
        return Done(status=status or 0, out=out.splitlines(), err=err)

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos with awkward names: blanks, umlauts, a leading dash, one name twice, a damaged one, hidden ones."""
    folder = tmp_path / "photos"
    for name, source in {
        "mein schönes Frühstück.JPG": COFFEE,
        "-rf.jpg": PENGUIN,
        "cat.jpg": CAT,
        "2023/photo.jpg": LIGHTHOUSE,
        "2024/photo.jpg": OTHER_LIGHTHOUSE,
        ".trash/photo.jpg": COFFEE,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / name)
    (folder / "damaged.jpg").write_bytes(COFFEE.read_bytes()[:3000])
    (folder / "notes.txt").write_text("not a photo")
    return folder


@pytest.fixture
def clothes(tmp_path: Path) -> Path:
    """Two images of each label of the reference."""
    dataset, folder = open_dataset(fashion_mnist_test()), tmp_path / "clothes"
    folder.mkdir()
    for label in dataset.labels:
        found = [index for index, sample in enumerate(dataset.samples) if sample.label == label]
        for number, index in enumerate(found[:2]):
            (folder / f"{label} {number}.png").write_bytes(dataset.read_bytes(index))
    return folder
