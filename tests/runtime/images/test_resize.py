"""Resizing without Pillow gives Pillow's pixels, or next to them."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import ImageError
from lraee.images.preprocess import pixels
from lraee.images.read import Pixels, read_image
from lraee.images.resize import resize
from lraee.reading import Reading
from lraee_calibration_data import open_dataset, photos

PILLOW_13 = pytest.mark.skipif(int(PIL.__version__.split(".")[0]) < 13, reason="older ones resize widths first")

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "imagenet-1k" / "photos.zip"
"""A thousand photos, where they are at hand; the test then takes 500 of them."""

FEW_PHOTOS = 12

LEVELS = 1
"""By how much ONNX Runtime's values may differ from Pillow's."""

SHARE = 0.001
"""Of the values that may."""


def clip(image_size: int = 224, interpolation: str = "bicubic") -> Preprocessing:
    """Give CLIP's preprocessing."""
    return Preprocessing(
        image_size=image_size, resize_mode="shortest", interpolation=interpolation, mean=(0,) * 3, std=(1,) * 3
    )


def noise(width: int, height: int, seed: int = 0) -> Pixels:
    """uint8 (height, width, 3): the hardest case for rounding, every value differs from its neighbours."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def differences(images: list[Pixels], preprocessing: Preprocessing, by: str) -> tuple[int, float]:
    """The largest difference to Pillow in levels, and the share of values that differ."""
    largest = different = count = 0
    for image in images:
        wanted = pixels(image, preprocessing, reading=Reading(resize="pillow")).astype(int)
        apart = np.abs(pixels(image, preprocessing, reading=Reading(resize=by)) - wanted)
        largest = max(largest, int(apart.max()))
        different += int((apart > 0).sum())
        count += apart.size
    return largest, different / count


def test_onnx_is_within_one_level_of_pillow_on_photos():
    """At most 1 level in at most 0.1 % of values; 500 photos of a thousand where these are, else some shipped ones."""
    dataset = open_dataset(SHARED if SHARED.is_file() else photos())
    count = 500 if SHARED.is_file() else FEW_PHOTOS
    chosen = np.linspace(0, len(dataset) - 1, count).astype(int)
    largest, share = differences([dataset.read(int(index)) for index in chosen], clip(), "onnx")
    assert largest <= LEVELS
    assert share <= SHARE


@PILLOW_13
def test_onnx_is_within_one_level_of_pillow_on_odd_sizes():
    """300 pieces of photos from 1 pixel up, shrunk and enlarged."""
    dataset = open_dataset(photos())
    whole = [dataset.read(index) for index in range(0, len(dataset), 20)]
    sizes = np.random.default_rng(1).integers(1, 289, (300, 2))
    images = [whole[number % len(whole)][:height, :width] for number, (height, width) in enumerate(sizes)]
    largest, share = differences(images, clip(96), "onnx")
    assert largest <= LEVELS
    assert share <= SHARE


@PILLOW_13
@settings(max_examples=120, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    new_width=st.integers(1, 120),
    new_height=st.integers(1, 120),
    interpolation=st.sampled_from(["bicubic", "bilinear", "nearest"]),
    seed=st.integers(0, 3),
)
def test_numpy_gives_pillows_pixels(width, height, new_width, new_height, interpolation, seed):
    """Bit for bit, at every size and with every filter: the arithmetic is the same."""
    image = noise(width, height, seed)
    wanted = resize(image, new_width, new_height, interpolation, "pillow")
    assert np.array_equal(resize(image, new_width, new_height, interpolation, "numpy"), wanted)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest"])
def test_numpy_gives_pillows_pixels_on_photos(interpolation):
    """The whole way, with the crop."""
    dataset = open_dataset(photos())
    images = [dataset.read(index) for index in range(0, len(dataset), 17)]
    assert differences(images, clip(interpolation=interpolation), "numpy") == (0, 0.0)


@pytest.mark.parametrize("by", ["numpy", "onnx"])
def test_extremes_do_not_overflow(by):
    """Sums of weights times 255 fit, and values beyond 0 and 255 are cut off."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::3] = 255
    wanted = resize(stripes, 40, 200, "bicubic", "pillow").astype(int)
    assert np.abs(resize(stripes, 40, 200, "bicubic", by) - wanted).max() <= (by == "onnx")


@pytest.mark.parametrize("by", ["auto", "pillow", "numpy", "onnx"])
def test_a_file_may_be_resized_by_any(by):
    """Pillow decodes, and the chosen way resizes."""
    buffer = io.BytesIO()
    Image.fromarray(noise(70, 50)).save(buffer, "PNG")
    got = pixels(buffer.getvalue(), clip(32), reading=Reading(resize=by)).astype(int)
    assert np.abs(got - pixels(read_image(buffer.getvalue()), clip(32))).max() <= (by == "onnx")


def test_onnx_refuses_other_filters():
    """It rounds unlike Pillow there."""
    with pytest.raises(ImageError, match=r"knows bicubic only and this bundle wants bilinear.*resize='numpy'"):
        pixels(noise(50, 40), clip(32, "bilinear"), reading=Reading(resize="onnx"))


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA", "CMYK", "YCbCr"])
def test_pictures_of_other_modes_are_resized_by_pillow_whatever_is_said(mode):
    """In RGB they would give other pixels than open_clip's."""
    picture = Image.fromarray(noise(61, 47)).convert(mode)
    for by in ("numpy", "onnx"):
        assert np.array_equal(pixels(picture, clip(32), reading=Reading(resize=by)), pixels(picture, clip(32)))


def test_an_unknown_way_is_refused():
    """The message lists the known ones."""
    with pytest.raises(ImageError, match="resize is 'opencv', wanted one of auto, pillow, onnx, numpy"):
        Reading(resize="opencv")


WITHOUT_PILLOW = """
import sys, numpy
sys.modules["PIL"] = None
import lraee
from lraee.images.resize import resize
image = numpy.load(sys.argv[1])
wanted = numpy.load(sys.argv[2])
print(*(abs(wanted[kind].astype(int) - resize(image, 40, 30, kind)).max() for kind in wanted.files))
print(lraee.load("reference").classify(image).label in lraee.load("reference").labels)
try: lraee.load("reference", reading=lraee.Reading(resize="pillow")).classify(image)
except lraee.LraeeError as error: print(error)
"""


def test_without_pillow_frames_of_any_size_are_classified(tmp_path):
    """ONNX Runtime resizes bicubic, numpy the rest; only resize='pillow' asks to install Pillow."""
    image = noise(90, 70)
    np.save(tmp_path / "image.npy", image)
    kinds = ("bicubic", "bilinear", "nearest")
    np.savez(tmp_path / "wanted.npz", **{kind: resize(image, 40, 30, kind) for kind in kinds})
    command = [sys.executable, "-c", WITHOUT_PILLOW, tmp_path / "image.npy", tmp_path / "wanted.npz"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    bicubic, bilinear, nearest = map(int, lines[0].split())
    assert bicubic <= LEVELS
    assert bilinear == nearest == 0
    assert lines[1] == "True"
    assert lines[2].endswith("pip install 'lraee[image]'")


GLOBAL_POOL = """
import sys, os, numpy
sys.modules["PIL"] = None
from lraee.ort.sessions import use_global_thread_pool
use_global_thread_pool(2)
import lraee
image = numpy.zeros((40, 50, 3), numpy.uint8)
for way in ("auto", "onnx", "numpy"):
    lraee.load("reference", thread_pool="global", reading=lraee.Reading(resize=way)).classify(image)
    print(way)
"""


def test_resizing_works_beside_the_process_wide_thread_pool():
    """Sessions with their own threads are refused in such a process."""
    done = subprocess.run([sys.executable, "-c", GLOBAL_POOL], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["auto", "onnx", "numpy"]
