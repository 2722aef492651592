"""The golden bundle, copies of it that a test may damage, the shipped reference model, and a browser."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lraee
from experiments.chromium import Browser, Tab, chromium, find_chromium
from lraee.images.read import Pixels
from lraee_calibration_data import fashion_mnist_test, open_dataset

GOLDEN = Path(__file__).parent / "golden" / "format_1.lraee"
"""Written by golden/make_format_1.py."""


class Forged:
    """A copy of the golden bundle whose files may be changed, with or without telling the manifest."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def manifest(self) -> dict[str, Any]:
        """``manifest.json`` as plain JSON; assign to write it."""
        content: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text("utf-8"))
        return content

    @manifest.setter
    def manifest(self, content: dict[str, Any]) -> None:
        (self.folder / "manifest.json").write_text(json.dumps(content), "utf-8")

    def damage(self, name: str) -> None:
        """Flip one bit in the middle of a file."""
        path = self.folder / name
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file and put its size and hash into the manifest, as somebody who means harm would."""
        (self.folder / name).write_bytes(content)
        manifest = self.manifest
        (entry,) = [entry for entry in manifest["files"] if entry["name"] == name]
        entry |= {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        self.manifest = manifest


@pytest.fixture(scope="session")
def golden() -> Path:
    """The golden bundle of format 1; not to be changed."""
    return GOLDEN


@pytest.fixture
def forged(tmp_path: Path) -> Forged:
    """A copy of the golden bundle that a test may change."""
    return Forged(Path(shutil.copytree(GOLDEN, tmp_path / "forged.lraee")))


@pytest.fixture(scope="session")
def model() -> lraee.Model:
    """The shipped reference model; a test that changes its labels loads its own."""
    return lraee.load("reference", threads=2)


@pytest.fixture(scope="session")
def photos() -> list[Pixels]:
    """32 of the shipped test images, spread over all classes, uint8 (28, 28, 3)."""
    dataset = open_dataset(fashion_mnist_test())
    spread = np.linspace(0, len(dataset) - 1, 32).astype(int)
    return [lraee.images.read.read_image(dataset.read_bytes(int(index))) for index in spread]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium."""
    program = find_chromium()
    if program is None:
        pytest.skip("needs Chromium: apt-get install chromium")
    with chromium(program) as made:
        yield made


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """A page in a profile of its own; nothing that it does may fail unseen."""
    browser.events.clear()
    made = browser.tab()
    yield made
    assert browser.faults() == []
    made.close()
