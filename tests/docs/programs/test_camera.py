"""`camera.py` says each new label once it is steady, keeps up with the camera, and notices when that stops."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from started_programs import CAT, COFFEE, LIGHTHOUSE, PENGUIN, PROGRAMS, Done, Run

import lraee


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
