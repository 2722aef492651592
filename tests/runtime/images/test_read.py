"""Images of every mode and source become uint8 RGB, and damaged ones are refused by name."""

import contextlib
import io
import runpy
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import ImageError, ImageWarning
from lraee.images.preprocess import pixels
from lraee.images.read import open_image, open_picture, read_image
from lraee.reading import Reading

RED = (255, 0, 0)
WRITERS = runpy.run_path(str(Path(__file__).parents[1] / "image_writers.py"))
png_chunk, tiff = WRITERS["png_chunk"], WRITERS["tiff"]


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    """The bytes of an image file."""
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def gradient(width: int = 40, height: int = 30) -> np.ndarray:
    """Make uint8 pixels (height, width, 3)."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 6 % 256, y * 8 % 256, (x + y) * 3 % 256], axis=2).astype(np.uint8)


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


@pytest.mark.parametrize("mode", ["F", "I"])
def test_values_without_an_agreed_range_are_refused(mode):
    """Such a file does not say which value is white."""
    with pytest.raises(
        ImageError,
        match=f"^the image cannot be converted to RGB: its mode {mode} holds values .* save .* with 8 or 16 bits",
    ):
        read_image(Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)).convert(mode))


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


def test_the_limit_of_reading_alone_decides(monkeypatch, tmp_path):
    """Pillow would warn from its own limit on, and refuse from twice of it; neither is asked nor changed."""
    path = tmp_path / "large.png"
    Image.new("1", (200, 100)).save(path)
    for limit in (15_000, 5_000, None):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_image(path, reading=Reading(max_pixels=20_000)).shape == (100, 200, 3)
        assert limit == Image.MAX_IMAGE_PIXELS
        with pytest.raises(ImageError, match=r"large\.png is too large .* 200 x 100 .* at most 19,999 \(max_pixels\)"):
            read_image(path, reading=Reading(max_pixels=19_999))
    with pytest.raises(ImageError, match="too large"):
        read_image(Image.new("1", (200, 100)), reading=Reading(max_pixels=10))
    with pytest.raises(ImageError, match="max_pixels is 0, wanted at least 1"):
        Reading(max_pixels=0)


def test_threads_with_different_limits_do_not_disturb_each_other():
    """Each call has its own limit."""
    content = encoded(Image.new("1", (200, 100)), "PNG")

    def attempt(number: int) -> bool:
        try:
            read_image(content, reading=Reading(max_pixels=20_000 - number % 2))
        except ImageError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(attempt, range(200))) == [number % 2 == 0 for number in range(200)]


@pytest.mark.parametrize("inner", ["PNG", "DIB"])
def test_the_limit_holds_for_the_image_inside_an_icon(inner):
    """The icon's own directory says 16 x 16."""
    content = encoded(Image.new("RGBA", (60, 60)), inner)
    if inner == "DIB":  # in an icon its height counts the mask too
        content = content[:8] + struct.pack("<i", 120) + content[12:] + bytes(60 * 8)
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(content), 22) + content
    with pytest.raises(ImageError, match="it is 60 x 60 pixels, wanted at most 3,599"):
        read_image(icon, reading=Reading(max_pixels=3599))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Image was not the expected size")
        assert read_image(icon, reading=Reading(max_pixels=3600)).shape == (60, 60, 3)


def test_a_photo_of_100_megapixels_is_read_where_it_is_allowed():
    """Without a warning of Pillow's, whose own limit lies at 89 megapixels; the default refuses it."""
    content = encoded(Image.new("1", (10_000, 10_000)), "PNG")
    with pytest.raises(ImageError, match="it is 10000 x 10000 pixels, wanted at most 89,478,485"):
        read_image(content)
    square = Preprocessing(image_size=8, resize_mode="squash", interpolation="bicubic", mean=(0,) * 3, std=(1,) * 3)
    assert pixels(content, square, reading=Reading(max_pixels=200_000_000)).shape == (8, 8, 3)


def png(width: int, height: int, *chunks: bytes, pixels: bytes = b"") -> bytes:
    """A PNG of 8-bit RGB that says it has this size, with compressed `pixels`."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + png_chunk(b"IDAT", pixels) + png_chunk(b"IEND", b"")


def bombs() -> dict[str, bytes]:
    """Small files that say, or would become, something huge."""
    huge = 65_000
    zeros = zlib.compress(bytes(2**28), 9)  # 256 MiB in 260 kB
    bmp = b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 50_000, 50_000, 1, 24, *[0] * 6)
    inner = png(30_000, 30_000)
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    jpeg = bytearray(encoded(Image.new("RGB", (16, 16)), "JPEG"))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", huge, huge)
    forged = bytearray(encoded(Image.new("RGB", (16, 16)), "TIFF"))
    for tag in (0x0100, 0x0101):
        place = forged.index(struct.pack("<HHI", tag, 4, 1))
        forged[place : place + 12] = struct.pack("<HHII", tag, 4, 1, 100_000)
    gif = bytearray(encoded(Image.new("P", (16, 16)), "GIF"))
    frame = gif.index(b",\0\0\0\0\x10\0\x10\0")
    gif[6:10] = gif[frame + 5 : frame + 9] = struct.pack("<HH", huge, huge)
    return {
        "header": png(100_000, 100_000, pixels=zeros),
        "text": png(8, 8, png_chunk(b"zTXt", b"Comment\0\0" + zeros)),
        "profile": png(8, 8, png_chunk(b"iCCP", b"profile\0\0" + zeros)),
        "more pixels than the header says": png(8, 8, pixels=zeros),
        "fewer pixels than the header says": png(2_000, 2_000, pixels=zlib.compress(bytes(1000))),
        "bmp": bmp,
        "icon": icon,
        "jpeg": bytes(jpeg),
        "tiff": bytes(forged),
        "gif": bytes(gif),
        "ppm": b"P6 60000 60000 255 ",
    }


BOMBS = """
import pathlib, resource, sys
from lraee.errors import ImageError
from lraee.images.read import read_image
from lraee.reading import Reading
from PIL import Image
folder = pathlib.Path(sys.argv[1])
if len(sys.argv) > 2: Image.MAX_IMAGE_PIXELS = None
read_image(folder / "plain.png")
Image.init()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in folder.iterdir():
    try: print(path.name, read_image(path, reading=Reading(max_pixels=8_000_000)).shape)
    except ImageError as error: print(path.name, "refused:", error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize("limit", ["Pillow's and ours", "ours"])
def test_a_decompression_bomb_takes_no_memory(limit, tmp_path):
    """Files of kilobytes that claim or unpack to hundreds of megabytes are refused, or their excess is not unpacked.

    Also where a program has switched Pillow's own limit off, and where an icon hides another image's size inside.
    """
    contents = bombs()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    command = [sys.executable, "-c", BOMBS, tmp_path, *(["without Pillow's"] if limit == "ours" else [])]
    *lines, grown_mb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    refused = {line.partition(" refused:")[0] for line in lines if " refused:" in line}
    harmless = {"more pixels than the header says", "text", "profile"}  # what they say of their size is true
    assert refused | harmless >= set(contents), lines
    assert "plain.png" not in refused
    assert int(grown_mb) < 64


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


@pytest.mark.parametrize(("mode", "value"), [("I", -1), ("I", 65536), ("F", 0)])
def test_a_value_just_out_of_16_bits_is_refused(mode, value):
    """Floats are refused whatever their values are."""
    with pytest.raises(ImageError, match="no agreed range"):
        read_image(Image.new(mode, (2, 2), value))


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
