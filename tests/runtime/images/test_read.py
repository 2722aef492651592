"""Images of every mode and source become uint8 RGB."""

import io
import runpy
import warnings
from pathlib import Path

import numpy as np
import pytest
from made_images import encoded, gradient
from PIL import Image

from lraee.errors import ImageWarning
from lraee.images.read import open_image, open_picture, read_image
from lraee.reading import Reading

RED = (255, 0, 0)
tiff = runpy.run_path(str(Path(__file__).parents[1] / "image_writers.py"))["tiff"]


def test_path_bytes_picture_and_array_give_the_same_pixels(tmp_path):
    """One image is given in four ways."""
    array = gradient()
    path = tmp_path / "gradient.png"
    Image.fromarray(array).save(path)
    content = path.read_bytes()
    with_gaps = memoryview(bytes(byte for pair in zip(content, content, strict=True) for byte in pair))[::2]
    mirrored = np.ascontiguousarray(array[:, ::-1])[:, ::-1]
    for source in (
        path,
        str(path),
        content,
        bytearray(content),
        memoryview(content),
        with_gaps,
        Image.open(path),
        array,
        mirrored,
    ):
        got = read_image(source)
        assert got.dtype == np.uint8
        assert got.flags.c_contiguous
        assert np.array_equal(got, array)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV", "I;16"])
def test_every_usual_mode_becomes_rgb(mode):
    """One white pixel stays white in each mode."""
    white = {"I;16": 65535, "P": 0, "HSV": (0, 0, 255), "CMYK": (0,) * 4, "YCbCr": (255, 128, 128)}
    bands = len(Image.new(mode, (1, 1)).getbands())
    image = Image.new(mode, (3, 2), white.get(mode, (255,) * bands if bands > 1 else 255))
    if mode == "P":
        image.putpalette([255, 255, 255])
    assert read_image(image).tolist() == [[[255, 255, 255]] * 3] * 2


WHITE = Reading(background=(255, 255, 255))


def test_alpha_is_dropped_unless_there_is_a_background():
    """As open_clip has it, what lies under the transparency shows; over white, half transparent red becomes pink."""
    image = Image.fromarray(np.array([[[255, 0, 0, 128], [0, 0, 0, 0]]], dtype=np.uint8))
    assert read_image(encoded(image, "PNG")).tolist() == [[[255, 0, 0], [0, 0, 0]]]
    assert read_image(encoded(image, "PNG"), reading=WHITE).tolist() == [[[255, 127, 127], [255, 255, 255]]]
    blue = Reading(background=(0, 0, 200))
    assert read_image(image, reading=blue).tolist() == [[[128, 0, 100], [0, 0, 200]]]


def test_a_transparent_palette_entry_lets_the_background_through():
    """The palette is resolved, with its transparency, before anything is interpolated."""
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, 0, 0, 255])
    image.putpixel((1, 0), 1)
    png, gif = encoded(image, "PNG", transparency=1), encoded(image, "GIF", transparency=0)
    assert read_image(png).tolist() == read_image(gif).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert read_image(png, reading=WHITE).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    assert read_image(gif, reading=WHITE).tolist() == [[[255, 255, 255], [0, 0, 255]]]


def test_a_transparent_colour_lets_the_background_through():
    """PNG can declare one colour transparent without an alpha channel."""
    colour = Image.fromarray(np.array([[RED, (1, 2, 3)]], dtype=np.uint8))
    png = encoded(colour, "PNG", transparency=(1, 2, 3))
    assert read_image(png).tolist() == [[[255, 0, 0], [1, 2, 3]]]
    assert read_image(png, reading=WHITE).tolist() == [[[255, 0, 0], [255, 255, 255]]]
    grey = Image.fromarray(np.array([[0, 65535, 257 * 2]], dtype=np.uint16))
    grey.info["transparency"] = 0
    assert read_image(grey).tolist() == [[[0] * 3, [255] * 3, [2] * 3]]
    assert read_image(grey, reading=WHITE).tolist() == [[[255] * 3, [255] * 3, [2] * 3]]


def pgm(values: np.ndarray) -> bytes:
    """A PGM of 16 bits; old Pillows write none."""
    return b"P5 %d %d 65535\n" % values.shape[::-1] + values.astype(">u2").tobytes()


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
def test_16_bits_are_scaled_not_clipped(file_format):
    """The middle of 16 bits is the middle of 8, whatever mode this Pillow gives such a file."""
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    deep = Image.fromarray(values)
    content = pgm(values) if file_format == "PPM" else encoded(deep, file_format)
    assert read_image(content)[0, :, 0].tolist() == [0, 1, 128, 255]
    assert read_image(deep.convert("I"))[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("most", [255, 3])
def test_grey_of_32_bits_without_a_value_above_255_is_8_bits(most):
    """In memory and in a TIFF, as open_clip reads it; taken for 16 bits it would be black."""
    values = np.linspace(0, most, 12).astype(np.int32).reshape(3, 4)
    wide = Image.fromarray(values)
    assert wide.mode == "I"
    for source in (wide, encoded(wide, "TIFF"), Image.open(io.BytesIO(encoded(wide, "TIFF")))):
        assert np.array_equal(read_image(source)[..., 0], values)
        turned = read_image(source, reading=Reading(exif_orientation=True))
        assert np.array_equal(turned[..., 0], values)


@pytest.mark.parametrize("most", [255, 4095])
@pytest.mark.parametrize("turned", [False, True])
def test_the_bits_of_a_file_count_not_its_values(most, turned):
    """A PNG or PGM of 16 bits that holds fewer stays nearly black, as documented, with a hint that names it."""
    values = np.linspace(0, most, 12).astype(np.uint16).reshape(3, 4)
    deep = Image.fromarray(values)
    for content in (encoded(deep, "PNG"), encoded(deep, "TIFF"), pgm(values)):
        with pytest.warns(ImageWarning, match=rf"^photo is nearly black: its brightest grey is {most} of 65,535"):
            got = read_image(content, name="photo", reading=Reading(exif_orientation=turned))
        assert got.max() == round(most * 255 / 65535)


def test_grey_of_12_bits_in_a_tiff_is_scaled_by_12_bits():
    """The file says so, and nothing is black."""
    values = np.array([[0, 16, 2048, 4095]], dtype=np.uint16)
    assert read_image(tiff(values[..., None], 12))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_a_dark_picture_is_hinted_at_once_by_its_name():
    """Python shows a warning of the same words once; one that is black all over needs none."""
    dark = encoded(Image.fromarray(np.full((3, 4), 900, np.uint16)), "PNG")
    black = encoded(Image.fromarray(np.zeros((3, 4), np.uint16)), "PNG")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for name in ("a", "a", "b", "a"):
            read_image(dark, name=name)
        read_image(black)
    assert [str(warning.message)[:18] for warning in shown] == ["a is nearly black:", "b is nearly black:"]


@pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken(file_format):
    """Frames after the first change nothing."""
    frames = [Image.new("RGB", (4, 3), colour) for colour in (RED, (0, 255, 0))]
    options = {"lossless": True} if file_format == "WEBP" else {}
    content = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **options)
    assert (read_image(content) == RED).all()


def test_exif_orientation_is_applied_only_when_asked_for():
    """open_clip does not turn images, so the default does not."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    content = encoded(Image.fromarray(gradient(40, 30)), "JPEG", exif=exif)
    assert read_image(content).shape == (30, 40, 3)
    assert read_image(content, reading=Reading(exif_orientation=True)).shape == (40, 30, 3)


def test_a_caller_may_keep_using_its_picture():
    """Reading neither closes nor changes a Pillow image."""
    image = Image.new("P", (4, 3))
    assert open_image(image).mode == "RGB"
    assert open_picture(image).mode == "P"
    assert read_image(image).shape == (3, 4, 3)
    assert image.mode == "P"
    assert image.resize((2, 2)).size == (2, 2)


def test_pixels_read_from_a_file_may_be_written():
    """numpy's view of a Pillow image is read-only; ours is a copy."""
    read_image(encoded(Image.new("RGB", (2, 2)), "PNG"))[:] = 1
