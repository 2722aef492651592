"""Anything but an image is refused in a short message that says how to give the image that was meant."""

import base64
import io
import os
import subprocess
import sys
import threading
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
from PIL import Image

import lraee
from lraee.errors import LONGEST_MESSAGE, BundleError, ImageError, LabelsError, LraeeError, PolicyError, shortened
from lraee.images.read import read_image
from lraee.labels.label_file import parse_labels
from lraee.policies.spec import parse_policy

HUGE = base64.b64encode(np.random.default_rng(0).bytes(3_000_000)).decode()
"""An image of a few megabytes, as a web page would send it: 4,000,000 characters."""


@pytest.mark.parametrize("text", [HUGE, HUGE[:300], f"data:image/png;base64,{HUGE}", HUGE.encode()], ids=len)
def test_a_whole_image_in_base64_gets_a_short_answer(model: lraee.Model, text: str | bytes) -> None:
    """Which says that it has to be decoded, and repeats next to nothing of it."""
    for call in (model.classify, lambda image: model.classify_batch([image]), lambda image: model.embed([image])):
        with pytest.raises(ImageError, match=r"base64\.b64decode") as raised:
            call(text)
        assert len(str(raised.value)) < 600


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("https://example.org/cat.jpg", "addresses are not fetched"),
        ("s3://bucket/cat.jpg", "addresses are not fetched"),
        ("file:///home/me/cat.jpg", "without file://"),
        ("data:image/png;base64,iVBORw0KGgo=", r"base64\.b64decode"),
        ("~/cat.jpg", r"expanduser\(\)"),
        (r"C:\photos\cat.jpg", "separates folders with /"),
        (PureWindowsPath("C:/photos/cat.jpg"), "separates folders with /"),
        ("?" * 5000, "give the content of an image as bytes"),
        ("cat.jpg", "there is no such file$"),
        ("a\0b.jpg", "cannot be read"),
        (b"photos/cat.jpg", "give a path as a str"),
        (b"data:image/png;base64,iVBORw0KGgo=", r"base64\.b64decode"),
        (b"<html><body>not found</body></html>", "is not an image in a format that Pillow can read$"),
    ],
)
def test_the_message_tells_what_was_probably_meant(text: str | bytes | Path, advice: str) -> None:
    """A text is a path and nothing else; bytes are the content of a file."""
    with pytest.raises(ImageError, match=advice) as raised:
        read_image(text)
    assert len(str(raised.value)) < 600


def test_an_object_that_is_no_image_is_told_how_to_become_one() -> None:
    """Open files, tensors and what else numpy can read."""
    torch = pytest.importorskip("torch")

    class Frame:
        def __array__(self) -> np.ndarray:
            return np.zeros((2, 2, 3), np.uint8)

    for source, advice in ((io.BytesIO(b"x"), r"image\.read\(\)"), (torch.zeros(3, 8, 8), r"image\.numpy\(\)")):
        with pytest.raises(ImageError, match=f"the image is a {type(source).__name__}; .*{advice}"):
            read_image(source)
    with pytest.raises(ImageError, match=r"numpy\.asarray\(image\)"):
        read_image(Frame())  # type: ignore[arg-type] # on purpose


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_or_a_device_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """Opening a pipe would hang until somebody writes into it; a device may never end."""
    os.mkfifo(tmp_path / "pipe.png")
    met: list[str] = []

    def attempt() -> None:
        for path in (tmp_path / "pipe.png", "/dev/zero"):
            try:
                read_image(path)
            except ImageError as error:
                met.append(str(error))

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(20)
    assert ["is a pipe or a device" in message for message in met] == [True, True]


def test_an_empty_file_is_called_empty(tmp_path: Path) -> None:
    """Downloads that failed leave such files."""
    (tmp_path / "cat.jpg").touch()
    with pytest.raises(ImageError, match=r"cat\.jpg is empty: it has 0 bytes"):
        read_image(tmp_path / "cat.jpg")


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "GIF", "TIFF"])
def test_a_picture_that_was_closed_before_it_was_decoded_says_so(tmp_path: Path, file_format: str) -> None:
    """Pillow reads the header when it opens a file and the rest when it is needed."""
    path = tmp_path / "photo"
    Image.new("RGB", (9, 8)).save(path, file_format)
    with Image.open(path) as left:
        pass
    closed = Image.open(path)
    closed.close()
    for picture in (left, closed):
        with pytest.raises(ImageError, match="closed before it was decoded; give its path"):
            read_image(picture)
    with Image.open(path) as loaded:
        loaded.load()
    assert read_image(loaded).shape == (8, 9, 3)


NAMES = ["a photo.png", "Äpfel 苹果.png", "PHOTO.PNG", "photo.jpg", "no suffix", "-o.png", "a'b\"c.png", "#1?.png"]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    """Also one whose suffix is wrong: the content tells the format. Links are followed."""
    path = tmp_path / name
    Image.new("RGB", (9, 8), (1, 2, 3)).save(path, "PNG")
    (tmp_path / "link").symlink_to(path)
    for source in (path, str(path), tmp_path / "link"):
        assert (read_image(source) == (1, 2, 3)).all()


def test_a_program_that_wants_damaged_images_gets_them(tmp_path: Path) -> None:
    """Pillow's own switch is the program's business; without it a truncated file is refused."""
    program = """
import sys
from PIL import ImageFile
from lraee.images.read import read_image
from lraee.errors import ImageError
try: read_image(sys.argv[1])
except ImageError as error: print("truncated" in str(error))
ImageFile.LOAD_TRUNCATED_IMAGES = True
print(read_image(sys.argv[1]).shape)
"""
    path = tmp_path / "half.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["True", "(60, 60, 3)"]


def test_no_message_repeats_a_long_argument(model: lraee.Model) -> None:
    """Wherever it was passed in: the bundle, labels, a policy, a setting."""
    attempts = {
        BundleError: [lambda: lraee.load(HUGE)],
        LabelsError: [
            lambda: model.set_labels([HUGE]),
            lambda: model.set_labels([HUGE, HUGE]),
            lambda: model.set_labels(["a", "b"], templates=[HUGE]),
            lambda: parse_labels(f"{HUGE}.txt"),
        ],
        PolicyError: [
            lambda: parse_policy(HUGE),
            lambda: parse_policy(f"exit={HUGE}"),
            lambda: parse_policy(f"replay={HUGE}"),
        ],
        ImageError: [
            lambda: lraee.Reading(resize=HUGE),  # type: ignore[arg-type] # on purpose, as below
            lambda: lraee.Reading(background=HUGE),  # type: ignore[arg-type]
            lambda: read_image(b"x", name=HUGE),
            lambda: read_image([HUGE]),  # type: ignore[arg-type]
        ],
    }
    for error, calls in attempts.items():
        for call in calls:
            with pytest.raises(error) as raised:
                call()
            assert len(str(raised.value)) <= LONGEST_MESSAGE


def test_a_shortened_text_keeps_its_two_ends() -> None:
    """What was met stands at the beginning, what to do at the end."""
    assert shortened("short", 10) == "short"
    text = f"begin {'x' * 9000} end"
    assert len(shortened(text, 100)) == 100
    assert shortened(text, 100).startswith("begin x")
    assert shortened(text, 100).endswith("x end")
    assert str(LraeeError(text)).endswith("x end")
