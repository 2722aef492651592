"""The first images of a process may come in several threads at once, while one of them imports Pillow."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path

import pytest

from lraee.images.read import is_pillow_image
from lraee_calibration_data import photo_table

AT_ONCE = """
import sys, threading
from lraee.images.read import read_image

content, barrier, faults = open(sys.argv[1], "rb").read(), threading.Barrier(8), []

def read():
    barrier.wait()
    try:
        read_image(content)
    except Exception as fault:
        faults.append(repr(fault))

threads = [threading.Thread(target=read) for _ in range(8)]
for one in threads:
    one.start()
for one in threads:
    one.join()
print(faults)
"""


def test_half_of_pillow_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """While another thread imports it, the module is there and its class is not."""
    monkeypatch.setitem(sys.modules, "PIL.Image", types.ModuleType("PIL.Image"))
    assert not is_pillow_image(b"\xff\xd8")


def test_threads_read_their_first_images_at_once() -> None:
    """In new processes, since a module is imported once."""
    photo: Path = photo_table().parent / "skimage-coffee.jpg"
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", AT_ONCE, str(photo)], capture_output=True, text=True, check=False)
        assert (done.stdout.strip(), done.stderr) == ("[]", "")
