"""`search_photos.py` finds photos by a label, a text or a photo, and embeds only what its index lacks."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from started_programs import CAT, COFFEE, LIGHTHOUSE, PHOTOS, PROGRAMS, Run

import lraee


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that were embedded so far."""
    names: list[str] = []
    stream = lraee.Model.classify_stream

    def spied(model: lraee.Model, images: Any, **settings: Any) -> Any:
        images = list(images)
        names.extend(path.name for path in images)
        return stream(model, images, **settings)

    monkeypatch.setattr(lraee.Model, "classify_stream", spied)
    return names


def test_photos_are_found_by_a_label_and_by_a_photo(run: Run, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The best comes first, with a name that a program can open."""
    found = run("search_photos.py", "photos", "king penguin", "--top", "2")
    assert found.status == 0
    assert len(found.out) == 2
    assert found.out[0].endswith("  photos/-rf.jpg")
    assert "photos/damaged.jpg" in caplog.text
    assert run("search_photos.py", "photos", LIGHTHOUSE).out[0] == "1.000  photos/2023/photo.jpg"
    unknown = run("search_photos.py", "photos", "lighthose")
    assert (unknown.status, unknown.out) == (1, [])
    assert "near ones are lighthouse" in unknown.err


def test_a_text_tower_finds_by_any_text(run: Run, clothes: Path) -> None:
    """Which is not one of the labels."""
    found = run("search_photos.py", "clothes", "a photo of a bag", "--bundle", "reference", "--top", "2")
    assert sorted(line.split("  ")[1] for line in found.out) == ["clothes/bag 0.png", "clothes/bag 1.png"]


def test_only_what_changed_is_embedded(run: Run, photos: Path, embedded: list[str]) -> None:
    """A new, a changed and a removed photo; a damaged one is tried every time."""
    (photos / "damaged.jpg").unlink()
    assert run("search_photos.py", "photos").status == 0
    assert len(embedded) == 5
    embedded.clear()
    run("search_photos.py", "photos")
    assert embedded == []
    shutil.copy(COFFEE, photos / "new.jpg")
    shutil.copy(LIGHTHOUSE, photos / "cat.jpg")
    (photos / "-rf.jpg").unlink()
    found = run("search_photos.py", "photos", "lighthouse")
    assert sorted(embedded) == ["cat.jpg", "new.jpg"]
    assert {line.split("  ")[1] for line in found.out[:3]} == {
        "photos/2023/photo.jpg",
        "photos/2024/photo.jpg",
        "photos/cat.jpg",
    }
    assert len(found.out) == 5


def test_another_bundle_makes_another_index(run: Run, photos: Path, embedded: list[str], tmp_path: Path) -> None:
    """An index that is given by name is made again, for embeddings of two models cannot be compared."""
    run("search_photos.py", "photos")
    run("search_photos.py", "photos", "--bundle", "reference")
    assert {path.name for path in tmp_path.glob("*.npz")} == {"photos.photo-clip.npz", "photos.reference.npz"}
    embedded.clear()
    run("search_photos.py", "photos", "--bundle", "reference", "--index", "photos.photo-clip.npz")
    assert len(embedded) == 6


def test_what_is_no_index_is_not_overwritten(run: Run, photos: Path, tmp_path: Path) -> None:
    """Such as a photo, half an index, or a file of another program."""
    np.savez(tmp_path / "other.npz", np.zeros(3))
    (tmp_path / "half.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:100])
    (tmp_path / "empty.npz").touch()
    shutil.copy(CAT, tmp_path / "mine.jpg")
    for name in ("other.npz", "half.npz", "empty.npz", "mine.jpg"):
        before = (tmp_path / name).read_bytes()
        done = run("search_photos.py", "photos", "--index", name)
        assert done.status == 1
        assert f"{name} is not an index of this program" in done.err
        assert (tmp_path / name).read_bytes() == before


def test_a_folder_that_is_suddenly_empty_keeps_its_index(run: Run, photos: Path, embedded: list[str]) -> None:
    """Its disk may not be mounted."""
    run("search_photos.py", "photos")
    photos.rename("elsewhere")
    for _ in range(2):
        done = run("search_photos.py", "photos", "lighthouse")
        assert (done.status, done.out) == (1, [])
        assert "photos has no photos that can be read" in done.err
        photos.mkdir(exist_ok=True)
    photos.rmdir()
    Path("elsewhere").rename(photos)
    embedded.clear()
    run("search_photos.py", "photos")
    assert embedded == ["damaged.jpg"]


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_run_loses_nothing_that_was_saved(
    run: Run, embedded: list[str], tmp_path: Path, signal_number: signal.Signals
) -> None:
    """Killed after its first save, the next run does only the rest."""
    (tmp_path / "photos").mkdir()
    given = sorted(PHOTOS.glob("*.jpg"))[:60]
    for photo in given:
        (tmp_path / "photos" / photo.name).symlink_to(photo)
    index = tmp_path / "photos.photo-clip.npz"
    program = subprocess.Popen(
        [sys.executable, PROGRAMS / "search_photos.py", "photos"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    end = time.monotonic() + 60
    while not index.exists() and time.monotonic() < end:
        time.sleep(0.002)
    program.send_signal(signal_number)
    _, err = program.communicate(timeout=60)
    if signal_number == signal.SIGTERM:
        assert (program.returncode, err) == (1, "error: interrupted; what is done is saved\n")
    else:
        assert (program.returncode, err) == (-signal.SIGKILL, "")
    with np.load(index) as file:
        saved = len(file["embeddings"])
    assert 1 <= saved < len(given)
    assert len(run("search_photos.py", "photos", "espresso", "--top", "200").out) == len(given)
    assert len(embedded) == len(given) - saved
