"""A page in Chromium decodes, classifies and embeds as Python does, from the same files."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from javascript_package import Installed
from PIL import Image, ImageCms

import lraee
from lraee.bundle.folder import SHIPPED
from lraee_calibration_data import photos

FOLDER = Path(__file__).with_name("browser")

CANNOT_START = 3
"""Exit status of asked.mjs where Chromium does not run, for instance for want of a library."""


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


def test_a_page_answers_as_python(
    npm_package: Installed, install: Callable[[Path], None], files: list[Path], tmp_path: Path
) -> None:
    """The very pixels that Pillow decodes, and with WebAssembly the same label and block on this photo."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("needs Linux on x86-64: the npm package with Chromium is for these alone")
    shutil.copytree(FOLDER, tmp_path, ignore=shutil.ignore_patterns("node_modules"), dirs_exist_ok=True)
    install(tmp_path)
    bundle = SHIPPED / "reference.lraee"
    words = [npm_package.node, "asked.mjs", str(npm_package.home), str(bundle), *map(str, files)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    if done.returncode == CANNOT_START:
        pytest.skip(f"needs Chromium, which does not start here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    model = lraee.load(bundle, threads=1)
    for path, met in zip(files, json.loads(done.stdout), strict=True):
        picture = Image.open(path).convert("RGBA")
        assert (met["width"], met["height"]) == picture.size, path.name
        assert bytes(met["sha256"]) == hashlib.sha256(picture.tobytes()).digest(), path.name
        own = model.classify(path)
        assert (met["label"], met["exitBlock"]) == (own.label, own.exit_block), path.name
        assert float(np.dot(met["embedding"], own.embedding)) > 0.99
