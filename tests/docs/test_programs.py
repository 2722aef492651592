"""The programs to start from do what their page says, on shipped photos and with names and files that go wrong.

They run in this process, and share sessions with the test before, where nothing has to be killed. `test_wheel` runs the
commands of the page in an environment of their own.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from markdown_files import ROOT
from PIL import Image

import lraee
from lraee_calibration_data import fashion_mnist_test, open_dataset, photo_table

PROGRAMS = ROOT / "docs" / "programs"
PHOTOS = photo_table().parent
COFFEE, PENGUIN, CAT, LIGHTHOUSE, OTHER_LIGHTHOUSE = (
    PHOTOS / f"{name}.jpg"
    for name in ("skimage-coffee", "cq100-king-penguin", "skimage-chelsea", "kodak-19", "kodak-21")
)
"""What photo-clip calls them: espresso, king penguin, unsure (tabby cat, 0.46), and lighthouse twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a program did."""

    status: int
    out: list[str]
    err: str


Run = Callable[..., Done]


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


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, and what is in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SORTED = {
    "espresso/mein schönes Frühstück.JPG": COFFEE,
    "king penguin/-rf.jpg": PENGUIN,
    "lighthouse/photo.jpg": LIGHTHOUSE,
    "lighthouse/photo-2.jpg": OTHER_LIGHTHOUSE,
    "unsure/cat.jpg": CAT,
}
"""Where the photos of `photos` go."""


def test_photos_are_copied_into_folders_of_their_labels(run: Run, photos: Path, tmp_path: Path) -> None:
    """The originals stay, a damaged photo is named, and a second run changes nothing."""
    before, wanted = tree(photos), {name: source.read_bytes() for name, source in SORTED.items()}
    for _ in range(2):
        done = run("sort_photos.py", "photos", "sorted")
        assert done.status == 1
        assert "left: photos/damaged.jpg" in done.err
        assert tree(tmp_path / "sorted") == wanted
        assert tree(photos) == before


def test_photos_are_moved_and_nothing_is_overwritten(run: Run, photos: Path, tmp_path: Path) -> None:
    """Not even a file of the same content; what cannot be read or is no photo stays."""
    taken = tmp_path / "sorted" / "unsure" / "cat.jpg"
    taken.parent.mkdir(parents=True)
    shutil.copy(CAT, taken)
    assert run("sort_photos.py", "photos", "sorted", "--move").status == 1
    wanted = {**SORTED, "unsure/cat-2.jpg": CAT}
    assert tree(tmp_path / "sorted") == {name: source.read_bytes() for name, source in wanted.items()}
    assert tree(photos).keys() == {"damaged.jpg", "notes.txt", ".trash/photo.jpg"}


def test_a_dry_run_says_where_photos_go_and_writes_nothing(run: Run, photos: Path, tmp_path: Path) -> None:
    """One line for each photo that can be read."""
    done = run("sort_photos.py", "photos", "sorted", "--dry-run")
    assert len(done.out) == len(SORTED)
    assert "photos/-rf.jpg -> sorted/king penguin/-rf.jpg (king penguin, 0.94)" in done.out
    assert not (tmp_path / "sorted").exists()


def test_sorting_into_a_folder_below_does_not_sort_what_is_sorted(run: Run, photos: Path) -> None:
    """And a folder is not sorted into itself."""
    (photos / "damaged.jpg").unlink()
    assert run("sort_photos.py", ".", "sorted").status == 0
    assert run("sort_photos.py", "photos", "photos/sorted").status == 0
    assert "5 photos sorted" in run("sort_photos.py", "photos", "photos/sorted", "--dry-run").err
    assert run("sort_photos.py", "photos", "photos").status == 2


def test_an_empty_folder_is_sorted_and_a_missing_one_is_refused(run: Run, tmp_path: Path) -> None:
    """Neither makes a folder."""
    (tmp_path / "empty").mkdir()
    assert run("sort_photos.py", "empty", "sorted").status == 0
    assert run("sort_photos.py", "missing", "sorted").status == 2
    assert not (tmp_path / "sorted").exists()


def test_a_full_disk_loses_no_photo(run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a copy is removed, the original stays and is named."""
    before = tree(photos)

    def half(original: io.BufferedReader, copy: io.BufferedWriter) -> None:
        copy.write(original.read(1000))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", half)
    done = run("sort_photos.py", "photos", "sorted", "--move")
    assert done.status == 1
    assert done.err.count("No space left on device") == len(SORTED)
    assert tree(photos) == before
    assert tree(tmp_path / "sorted") == {}


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


def test_labels_of_ones_own_become_folders(run: Run, clothes: Path, tmp_path: Path) -> None:
    """Also those that no folder can be called."""
    words = ["--bundle", "reference", "--labels", "bag, trousers/jeans", "--at-least", "0"]
    assert run("sort_photos.py", "clothes", "sorted", *words).status == 0
    assert {path.name for path in (tmp_path / "sorted").iterdir()} == {"bag", "trousers_jeans"}
    assert (tmp_path / "sorted" / "bag" / "bag 0.png").is_file()
    assert run("sort_photos.py", "clothes", "sorted", "--labels", "bag,coat").status == 2  # photo-clip has no texts


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


def clip(*photos: Path, each: int) -> bytes:
    """A stream of JPEGs as cameras deliver it, with padding between."""
    return b"".join((photo.read_bytes() + bytes(7)) * each for photo in photos)


def labels(done: Done) -> list[str]:
    """What a camera saw."""
    return [re.fullmatch(r"\d\d:\d\d:\d\d (.+) \(\d\.\d\d, \d+ ms\)", line)[1] for line in done.out]  # type: ignore[index]


def test_a_clip_is_watched_until_its_end(run: Run, tmp_path: Path) -> None:
    """A line for each new label, damaged frames are skipped, and health checks see that it works."""
    damaged = b"\xff\xd8 damaged \xff\xd9"
    (tmp_path / "clip.mjpeg").write_bytes(clip(COFFEE, each=12) + damaged + clip(LIGHTHOUSE, PENGUIN, each=12))
    done = run("camera.py", "clip.mjpeg", "--fps", "10", "--steady", "1", "--alive", "alive")
    assert (done.status, labels(done)) == (0, ["espresso", "lighthouse", "king penguin"])
    assert re.fullmatch(r"\d+ of 37 frames answered, \d+ of these late\n", done.err)
    assert (tmp_path / "alive").is_file()


def test_late_frames_are_dropped_and_the_newest_is_answered(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow machine does not fall behind the camera."""
    (tmp_path / "clip").mkdir()
    for number in range(40):
        (tmp_path / "clip" / f"{number:02}.jpg").symlink_to(PENGUIN if number == 39 else COFFEE)
    classify = lraee.Model.classify
    answered = []

    def slow(model: lraee.Model, image: Path, **settings: Any) -> lraee.Prediction:
        time.sleep(0.1)
        answered.append(image.name)
        return classify(model, image, **settings)

    monkeypatch.setattr(lraee.Model, "classify", slow)
    done = run("camera.py", "clip", "--fps", "100", "--steady", "1", "--deadline", "50")
    assert done.err == f"{len(answered)} of 40 frames answered, {len(answered)} of these late\n"
    assert len(answered) < 20
    assert answered[-1] == "39.jpg"
    assert labels(done) == ["espresso", "king penguin"]


def test_a_label_has_to_be_steady(run: Run, tmp_path: Path) -> None:
    """One frame of something else changes nothing."""
    (tmp_path / "clip.mjpeg").write_bytes(
        clip(PENGUIN, each=3) + clip(COFFEE, each=1) + clip(PENGUIN, each=3) + clip(CAT, each=3)
    )
    assert labels(run("camera.py", "clip.mjpeg", "--fps", "10")) == ["king penguin", "unsure"]


def test_sigterm_ends_the_camera_cleanly(tmp_path: Path) -> None:
    """While it waits for a frame that does not come."""
    program = subprocess.Popen(
        [sys.executable, PROGRAMS / "camera.py", "-", "--steady", "1"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(clip(COFFEE, each=1))
    program.stdin.flush()
    assert b"espresso" in program.stdout.readline()
    program.send_signal(signal.SIGTERM)
    _, err = program.communicate(timeout=60)
    assert (program.returncode, err.decode().splitlines()[1:]) == (0, [])
    assert err.startswith(b"1 of 1 frames answered")


def test_a_camera_that_stops_is_an_error(run: Run, tmp_path: Path) -> None:
    """So that it is started again; no frame at all is one, too."""
    os.mkfifo(tmp_path / "camera.mjpeg")
    done = run("camera.py", "camera.mjpeg", "--timeout", "0.2")
    assert (done.status, done.out) == (1, [])
    assert done.err.endswith("no frame came within 0.2 s\n")
    (tmp_path / "camera.mjpeg").open("wb").close()  # ends the thread that waits for the camera
    threading.Timer(0.1, lambda: (tmp_path / "camera.mjpeg").write_bytes(clip(COFFEE, each=2))).start()
    done = run("camera.py", "camera.mjpeg", "--steady", "1")
    assert (done.status, labels(done)) == (1, ["espresso"])
    assert done.err.endswith("camera.mjpeg has no more frames\n")


def test_frames_of_opencv_are_turned_to_rgb(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With OpenCV's interface and no camera; without OpenCV, the error names it."""
    opened: list[object] = []
    bgr = np.asarray(Image.open(COFFEE).convert("RGB"))[:, :, ::-1]
    left = [(True, bgr)] * 3

    def video_capture(source: object) -> SimpleNamespace:
        opened.append(source)
        return SimpleNamespace(read=lambda: left.pop() if left else (False, None))

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=video_capture))
    done = run("camera.py", "0", "--steady", "1")
    assert (done.status, labels(done), opened) == (1, ["espresso"], [0])
    monkeypatch.setitem(sys.modules, "cv2", None)
    done = run("camera.py", "rtsp://camera/stream")
    assert done.status == 1
    assert "cv2" in done.err


@pytest.mark.parametrize("program", ["sort_photos.py", "search_photos.py", "camera.py"])
def test_a_program_is_short_and_says_what_is_wrong_in_one_line(run: Run, program: str, photos: Path) -> None:
    """Fewer than 120 lines, and no traceback for a bundle that is not there."""
    assert len((PROGRAMS / program).read_text("utf-8").splitlines()) < 120
    words = {"sort_photos.py": ["sorted"], "search_photos.py": [], "camera.py": []}[program]
    done = run(program, "photos", *words, "--bundle", "missing.lraee")
    assert done.status in (1, 2)
    assert "missing.lraee is not a folder; wanted a bundle" in done.err.splitlines()[-1]
