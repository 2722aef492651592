"""A page in Chromium decodes files to the very pixels that Pillow gives Python."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from PIL import Image, ImageCms

from experiments.browser import ADD_INPUT
from experiments.chromium import Tab
from lraee_calibration_data import photos

DECODE = """(async () => {
  const { decode } = await import("/src/browser.js");
  const { data, width, height } = await decode(document.getElementById("all").files[AT]);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return { width, height, sha256: Array.from(digest) };
})()"""


def swapped_profile() -> bytes:
    """A colour profile that takes red for blue: a browser that follows it changes every pixel."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")
    profile[red : red + 4], profile[blue : blue + 4] = b"bXYZ", b"rXYZ"
    return bytes(profile)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A photo that asks to be turned and has another colour profile, in three formats."""
    folder = tmp_path_factory.mktemp("files")
    picture, turned = Image.open(sorted(photos().glob("*.jpg"))[0]).convert("RGB"), Image.Exif()
    turned[274] = 6
    written = [folder / f"photo{suffix}" for suffix in (".jpg", ".png", ".webp")]
    for path in written:
        picture.save(path, exif=turned, icc_profile=swapped_profile())
    return written


def test_files_are_decoded_as_pillow_decodes_them(
    tab: Tab, assembled: Path, serve: Callable[..., ThreadingHTTPServer], files: list[Path]
) -> None:
    """Neither turned nor with other colours."""
    tab.open(f"http://localhost:{serve(assembled, isolated=False).server_port}/page/page.css")
    tab.run(ADD_INPUT)
    tab.choose("#all", *files)
    for at, path in enumerate(files):
        met = tab.run(DECODE.replace("AT", str(at)))
        picture = Image.open(path).convert("RGBA")
        assert (met["width"], met["height"]) == picture.size, path.name
        assert bytes(met["sha256"]) == hashlib.sha256(picture.tobytes()).digest(), path.name
