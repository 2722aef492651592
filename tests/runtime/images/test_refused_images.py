"""What is no whole image, or says no range of its values, is refused by its name and with what to do instead."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_images import encoded, gradient
from PIL import Image

from lraee.errors import ImageError
from lraee.images.read import open_image, read_image


def test_a_missing_file_is_named(tmp_path):
    """No traceback from deep inside Pillow."""
    with pytest.raises(ImageError, match=r"nothing\.jpg: there is no such file"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(ImageError, match="is a folder"):
        read_image(tmp_path)


def test_a_file_of_another_kind_is_named(tmp_path):
    """A text file with an image's suffix."""
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(ImageError, match=r"notes\.jpg is not an image"):
        read_image(path)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_truncated_file_is_refused_with_its_name(file_format, tmp_path):
    """Half a picture is not classified as if it were whole."""
    random = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    content = encoded(Image.fromarray(random), file_format)
    path = tmp_path / "half.bin"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ImageError, match=r"half\.bin "):
        read_image(path)


@settings(max_examples=150, deadline=None)
@given(
    file_format=st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP"]),
    changes=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_a_damaged_file_gives_pixels_or_an_image_error(file_format, changes):
    """Whatever bytes are changed, no other exception gets out."""
    content = bytearray(encoded(Image.fromarray(gradient(16, 12)), file_format))
    for position, value in changes:
        content[position % len(content)] = value
    with contextlib.suppress(ImageError):
        assert read_image(bytes(content)).dtype == np.uint8


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_an_agreed_range_are_refused(mode):
    """Such a file does not say which value is white."""
    with pytest.raises(
        ImageError,
        match=f"^the image cannot be converted to RGB: its mode {mode} holds values .* save .* with 8 or 16 bits",
    ):
        read_image(Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)).convert(mode))


@pytest.mark.parametrize(("mode", "value"), [("I", -1), ("I", 65536), ("F", 0)])
def test_a_value_just_out_of_16_bits_is_refused(mode, value):
    """Floats are refused whatever their values are."""
    with pytest.raises(ImageError, match="no agreed range"):
        read_image(Image.new(mode, (2, 2), value))


@pytest.mark.parametrize(
    ("array", "fix"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), "astype"),
        (np.zeros((4, 4, 3), dtype=bool), r"image\.astype\(numpy\.uint8\) \* 255"),
        (np.zeros((4, 4), dtype=np.uint8), "numpy.stack"),
        (np.zeros((4, 4, 4), dtype=np.uint8), "fourth channel"),
        (np.zeros((3, 8, 9), dtype=np.uint8), "transpose"),
        (np.zeros((1, 4, 4, 3), dtype=np.uint8), "batch"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "no empty axis"),
        (np.zeros((4, 5, 2), dtype=np.uint8), "give one RGB image"),
    ],
)
def test_another_array_is_refused_with_the_fix(array, fix):
    """The message says what to write instead."""
    with pytest.raises(ImageError, match=fix):
        read_image(array)


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_a_picture_without_pixels_is_refused(size):
    """Pillow can make such pictures."""
    with pytest.raises(ImageError, match="has no pixels: it is"):
        read_image(Image.new("RGB", size))


@pytest.mark.parametrize("source", [b"abc", bytearray(b"abc"), memoryview(b"abc")])
def test_an_error_names_the_image_as_it_is_told_or_by_its_size(source):
    """Bytes have no path that could be named."""
    with pytest.raises(ImageError, match=r"^an image of 3 bytes is not an image"):
        read_image(source)
    with pytest.raises(ImageError, match=r"^camera 1 is not an image"):
        read_image(source, name="camera 1")


def test_another_type_is_refused_by_its_name():
    """A list of numbers is not an image."""
    with pytest.raises(ImageError, match="is a list; give a path"):
        open_image([[0, 0, 0]])


def test_without_pillow_the_message_is_the_install_command():
    """Importing and passing arrays works; a path asks for the extra; another type is still named."""
    program = """
import sys, numpy
sys.modules["PIL"] = None
from lraee.errors import ImageError, MissingExtraError
from lraee.images.read import read_image
read_image(numpy.zeros((2, 2, 3), numpy.uint8))
try: read_image(3.5)
except ImageError as error: print(error)
try: read_image("photo.jpg")
except MissingExtraError as error: print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("the image is a float;")
    assert second.endswith("run: pip install 'lraee[image]'")
