"""Several threads decode to the bytes of one, and end with the work, however it ends."""

from __future__ import annotations

import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import DataError
from lraee_calibration_data import open_dataset
from lraee_toolchain.data.decoding import CHUNK, FEW_IMAGES, MOST_WORKERS, decode, decoding_workers
from lraee_toolchain.data.splits import save_pixels

SMALL = Preprocessing(image_size=28, resize_mode="shortest", interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3)


def decoding_threads() -> list[str]:
    """Names of threads that decode."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.fixture
def damaged(few_images: Path, tmp_path: Path) -> Path:
    """The images with two damaged ones, far apart."""
    target = tmp_path / "damaged.zip"
    with zipfile.ZipFile(few_images) as whole, zipfile.ZipFile(target, "w") as few:
        for number, name in enumerate(sorted(whole.namelist())):
            content = whole.read(name)
            few.writestr(name, content[:40] if number in (70, 200) else content)
    return target


@pytest.mark.parametrize("workers", [2, 5])
def test_threads_change_no_byte(workers: int, damaged: Path, tmp_path: Path) -> None:
    """Pixels, their order, and what is said of images that cannot be read."""
    dataset = open_dataset(damaged, unreadable="skip")
    folders = [tmp_path / "one", tmp_path / "several"]
    for folder, count in zip(folders, (1, workers), strict=True):
        folder.mkdir()
        save_pixels(dataset, SMALL, folder, views=1, seed=0, workers=count)
    one, several = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == several
    assert len(np.load(tmp_path / "one" / "source.npy")) == len(dataset) - 2


def test_the_error_is_that_of_the_first_image_in_order(damaged: Path) -> None:
    """Whichever thread meets one first; no thread is left."""
    dataset = open_dataset(damaged)
    messages = []
    for workers in (1, 4):
        with pytest.raises(DataError) as caught:
            list(decode(dataset, SMALL, workers=workers))
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert sorted(zipfile.ZipFile(damaged).namelist())[70] in messages[0]
    assert decoding_threads() == []


def test_no_thread_outlives_a_reader_that_stops(few_images: Path) -> None:
    """As after Ctrl-C or a full disk: the generator is closed, and closes its threads."""
    pieces = decode(open_dataset(few_images), SMALL, workers=2)
    assert len(next(pieces).pixels) == CHUNK
    assert decoding_threads()
    pieces.close()
    assert decoding_threads() == []


def test_threads_are_started_for_many_images_only() -> None:
    """Unless they are asked for; then as many as that."""
    assert decoding_workers(None, FEW_IMAGES - 1) == 1
    assert 1 <= decoding_workers(None, FEW_IMAGES) <= MOST_WORKERS
    assert decoding_workers(3, 1) == 3
