"""The page that runs in a browser: its answers, without a network, at a phone's width, and when something is wrong."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from javascript_package import Installed
from opened_page import (
    ANSWER,
    COMPARED,
    ERROR,
    KEPT,
    READY,
    SERVING,
    SUMMARY,
    TIMES,
    address,
    answered,
    opened,
    select,
    use_labels,
    wanted,
    written_images,
)

import lraee
from experiments.browser import ask_page
from experiments.chromium import Tab
from experiments.javascript import distance
from lraee_calibration_data import photos

NEAR = 0.03
"""How far a gate may be from its threshold, or the first label from the second, where answers differ."""

EARLY = 47
"""A shipped photo that leaves early."""

PHONE = 360
"""Pixels of a narrow phone."""

TOUCHED = 44
"""Pixels that a finger needs."""


def test_a_dropped_photo_gets_the_answer_of_python(
    tab: Tab, assembled: Path, serve: Callable[..., ThreadingHTTPServer]
) -> None:
    """With what it saved, and the time of each block that ran."""
    photo = sorted(photos().glob("*.jpg"))[EARLY]
    model = lraee.load("photo-clip", threads=1)
    opened(tab, address(serve(assembled, isolated=False), "photo-clip"))
    tab.drop("#drop", photo)
    tab.wait(COMPARED)
    said = f"{tab.run(ANSWER)}: {tab.run(SUMMARY)}"
    assert said.startswith(wanted(model, photo))
    assert " of the FLOPs. " in said
    rows = tab.run(f"[...{TIMES}.rows].map((row) => [...row.cells].map((one) => one.textContent))")
    assert [name for name, _ in rows][:2] == ["stem", "block 1"]
    assert all(float(ms) >= 0 for _, ms in rows)
    select(tab, "policy", "full")
    tab.wait(f"{SUMMARY}.startsWith('Ran through all 12 blocks')")


@pytest.mark.parametrize(("bundle", "others"), [("reference", 0), ("photo-clip", 3)])
def test_files_get_the_answers_of_python(
    tab: Tab, assembled: Path, serve: Callable[..., ThreadingHTTPServer], tmp_path: Path, bundle: str, others: int
) -> None:
    """Label and exit; WebAssembly rounds differently, so some photos near a threshold get another answer."""
    paths = sorted(photos().glob("*.jpg"))[::4] if bundle == "photo-clip" else written_images(tmp_path, 40)
    model = lraee.load(bundle, threads=1)
    tab.open(f"http://localhost:{serve(assembled, isolated=False).server_port}/page/page.css")
    found = ask_page(tab, bundle, paths, timed=False)
    own = [model.classify(path) for path in paths]
    same = [
        (met["exitBlock"], met["label"]) == (one.exit_block, one.label) for met, one in zip(found, own, strict=True)
    ]
    assert same.count(False) <= others
    for path, met, one, is_same in zip(paths, found, own, same, strict=True):
        if not is_same:
            assert distance(model, path) <= NEAR or one.top[0][1] - one.top[1][1] <= NEAR, path.name
        elif bundle == "reference":
            assert float(np.dot(met["embedding"], one.embedding)) >= 0.999


def test_it_works_without_a_server_after_the_first_visit(
    tab: Tab, assembled: Path, serve: Callable[..., ThreadingHTTPServer], tmp_path: Path
) -> None:
    """Page, runtime and bundle are all kept, and threads stay allowed."""
    server = serve(assembled)
    opened(tab, address(server, "reference"))
    tab.wait(f"{KEPT}.includes('reference are kept')")
    server.shutdown()
    server.server_close()
    tab.open("about:blank")
    opened(tab, address(server, "reference"))
    assert tab.run("crossOriginIsolated")
    (image,) = written_images(tmp_path, 1)
    assert answered(tab, image).startswith(wanted(lraee.load("reference", threads=1), image))


def test_it_says_why_there_is_one_thread(tab: Tab, assembled: Path, serve: Callable[..., ThreadingHTTPServer]) -> None:
    """Where the server sends no headers, also at the next visit; once it does, the next visit follows."""
    server = serve(assembled, isolated=False)
    for _ in range(2):
        opened(tab, address(server, "reference"))
        assert "Runs with one thread" in tab.text()
        assert "Cross-Origin-Embedder-Policy: require-corp" in tab.text()
        tab.wait(KEPT)
        tab.open("about:blank")
    server.RequestHandlerClass.keywords["headers"].update(SERVING["ISOLATION"])
    opened(tab, address(server, "reference"))
    assert tab.run("crossOriginIsolated")
    assert "Runs with one thread" not in tab.text()


def test_nothing_is_wider_than_a_phone(
    tab: Tab, assembled: Path, serve: Callable[..., ThreadingHTTPServer], tmp_path: Path
) -> None:
    """Neither with an answer nor with an error, and what is touched is large enough."""
    tab.resize(PHONE, 740, is_phone=True)
    opened(tab, address(serve(assembled, isolated=False), "reference"))
    (image,) = written_images(tmp_path, 1)
    answered(tab, image)
    (tmp_path / "no-photo.png").write_bytes(b"text")
    tab.choose("#file", tmp_path / "no-photo.png")
    tab.wait(ERROR)
    assert tab.run("document.documentElement.scrollWidth") <= PHONE
    heights = tab.run("[...document.querySelectorAll('button, select')].map((one) => one.offsetHeight).filter(Boolean)")
    assert min(heights) >= TOUCHED


def test_labels_are_typed_where_there_is_a_text_tower(
    tab: Tab, assembled: Path, serve: Callable[..., ThreadingHTTPServer], tmp_path: Path
) -> None:
    """And nowhere else."""
    server = serve(assembled)
    opened(tab, address(server, "reference"))
    (image,) = written_images(tmp_path, 1)
    model = lraee.load("reference", threads=1)
    model.set_labels(["footwear", "garment", "bag"])
    answered(tab, image)
    use_labels(tab, "footwear, garment\nbag")
    tab.wait("document.getElementById('top').children.length === 3")
    assert tab.run(ANSWER) == model.classify(image).label
    use_labels(tab, "one")
    assert "at least two" in tab.wait(ERROR)
    select(tab, "bundle", "1")
    tab.wait(f"{READY} && document.getElementById('labels').value.includes('goldfish')")
    assert tab.run("document.getElementById('labels-label').hidden")


def test_a_damaged_bundle_is_told_in_one_sentence(
    tab: Tab, assembled: Path, archives: dict[str, Path], serve: Callable[..., ThreadingHTTPServer], tmp_path: Path
) -> None:
    """From the server, which is asked again next time, and from a file."""
    shutil.copytree(assembled, tmp_path / "page")
    damaged = tmp_path / "page" / "bundles" / "reference.zip"
    content = bytearray(damaged.read_bytes())
    content[content.index(b"block_01.data") + 5000] ^= 1
    damaged.write_bytes(content)
    server = serve(tmp_path / "page")
    tab.open(address(server, "reference"))
    said = tab.wait(ERROR)
    assert said.startswith("reference cannot be opened: ")
    assert "damaged" in said
    assert "No bundle is open." in tab.text()
    damaged.write_bytes(archives["reference"].read_bytes())
    tab.open("about:blank")
    opened(tab, address(server, "reference"))
    (tmp_path / "own.zip").write_bytes(content[:-100])
    tab.choose("#file", tmp_path / "own.zip")
    assert tab.wait(ERROR).startswith("own.zip cannot be opened: own.zip ")
    tab.choose("#file", archives["reference"])
    tab.wait(f"{READY} && !({ERROR})")


def test_the_camera_is_answered_until_it_is_stopped(
    tab: Tab, assembled: Path, serve: Callable[..., ThreadingHTTPServer]
) -> None:
    """By a time limit too."""
    opened(tab, address(serve(assembled), "reference"))
    select(tab, "policy", "limit")
    tab.run("document.getElementById('camera').click()")
    tab.wait("document.getElementById('camera').textContent === 'Stop the camera'")
    first = tab.wait(f"!document.getElementById('result').hidden && {SUMMARY}")
    tab.wait(f"{SUMMARY} !== {json.dumps(first)}")
    tab.run("document.getElementById('camera').click()")
    tab.wait("document.getElementById('camera').textContent === 'Use the camera'")
    assert tab.run("document.getElementById('video').srcObject === null")


def test_a_new_version_is_offered(
    tab: Tab,
    assembled: Path,
    serve: Callable[..., ThreadingHTTPServer],
    npm_package: Installed,
    archives: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Of what changed alone is fetched; it is used when the person says so."""
    out = tmp_path / "out"
    npm_package.run("assemble_page.js", str(out), str(archives["reference"]))
    server = serve(out)
    opened(tab, address(server, "reference"))
    tab.wait(f"{KEPT}.includes('are kept')")
    change(out, "page/page.css", "\n/* newer */\n")
    tab.open("about:blank")
    opened(tab, address(server, "reference"))
    tab.wait("!document.getElementById('update').hidden")
    tab.run("document.querySelector('#update button').click()")
    tab.wait(f"document.getElementById('update').hidden && {READY}")
    assert "newer" in tab.run("fetch('page/page.css').then((found) => found.text())")


def change(out: Path, name: str, more: str) -> None:
    """Change a file of an assembled page, as assembling it again would."""
    path, worker = out / name, out / "service_worker.js"
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text(path.read_text("utf-8") + more, "utf-8")
    new = hashlib.sha256(path.read_bytes()).hexdigest()
    worker.write_text(worker.read_text("utf-8").replace(old, new), "utf-8")
