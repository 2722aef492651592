"""What tests of the page share: opening it, giving it photos and settings, and reading what it says."""

from __future__ import annotations

import runpy
from http.server import ThreadingHTTPServer
from pathlib import Path

from javascript_package import ROOT

import lraee
from experiments.chromium import Tab
from lraee_calibration_data import fashion_mnist_test, open_dataset

SERVING = runpy.run_path(str(ROOT / "docs" / "programs" / "serve.py"))
"""The server that the documents bring."""

READY = "document.getElementById('status').textContent.includes('is ready')"
ERROR = "!document.getElementById('error').hidden && document.getElementById('error').textContent"
ANSWER = "document.getElementById('top').innerText.split('\\n')[0]"
SUMMARY = "document.getElementById('summary').textContent"
COMPARED = "document.getElementById('compared').textContent"
TIMES = "document.getElementById('times')"
KEPT = "document.getElementById('offline').textContent"


def address(server: ThreadingHTTPServer, bundle: str) -> str:
    """Where a bundle's page is."""
    return f"http://localhost:{server.server_port}/#{bundle}"


def opened(tab: Tab, place: str) -> None:
    """Open a page and wait until its bundle can be used."""
    tab.open(place)
    tab.wait(READY)


def select(tab: Tab, element: str, value: str) -> None:
    """Choose one of a list's values."""
    tab.run(
        f"Object.assign(document.getElementById({element!r}), {{value: {value!r}}}).dispatchEvent(new Event('change'))"
    )


def use_labels(tab: Tab, words: str) -> None:
    """Type labels and press the button."""
    tab.run(f"document.getElementById('labels').value = {words!r}")
    tab.run("document.getElementById('use-labels').click()")


def answered(tab: Tab, photo: Path) -> str:
    """Give a photo to a page, and read the first label and what is said of where it left."""
    tab.choose("#file", photo)
    tab.wait(COMPARED)
    return f"{tab.run(ANSWER)}: {tab.run(SUMMARY)}"


def wanted(model: lraee.Model, photo: Path) -> str:
    """What the page should say of a photo."""
    found = model.classify(photo)
    blocks = model.manifest.tower.blocks
    where = f"Left after block {found.exit_block} of" if found.early else "Ran through all"
    return f"{found.label}: {where} {blocks}"


def written_images(folder: Path, count: int) -> list[Path]:
    """Write some test images of Fashion-MNIST as files."""
    dataset = open_dataset(fashion_mnist_test())
    paths = [folder / f"{index}.png" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(dataset.read_bytes(index * 7))
    return paths
