"""The limit of reading alone decides how large an image may be, and a small file that claims more takes no memory."""

import runpy
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from made_images import encoded
from PIL import Image

from lraee.bundle.preprocessing import Preprocessing
from lraee.errors import ImageError
from lraee.images.preprocess import pixels
from lraee.images.read import read_image
from lraee.reading import Reading

png_chunk = runpy.run_path(str(Path(__file__).parents[1] / "image_writers.py"))["png_chunk"]


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
