"""Sessions are made once, in the background if asked for, and use little memory if asked for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import numpy as np
import pytest

import lraee
from lraee.engine import part_sessions
from lraee.errors import BundleError
from lraee.ort import mapped_pages
from lraee.ort.sessions import make_session


def background() -> list[threading.Thread]:
    """List the threads that preload now."""
    return [thread for thread in threading.enumerate() if thread.name == "lraee-preload"]


def wait_for_the_end() -> None:
    """Until nothing is preloaded any more."""
    for thread in background():
        thread.join(20)
    assert background() == []


def test_preloading_makes_every_session_once_and_ends(photos, monkeypatch):
    """While images run already; they get the usual answers, and no thread is left."""
    made: list[str] = []
    monkeypatch.setattr(
        part_sessions, "make_session", lambda path, to, **more: made.append(path.stem) or make_session(path, to, **more)
    )
    wanted = lraee.load("reference", threads=1).classify(photos[0], policy=lraee.Full())
    made.clear()
    model = lraee.load("reference", threads=1, preload=True)
    assert model.classify(photos[0], policy=lraee.Full()).top == wanted.top
    wait_for_the_end()
    graphs = [part.graph.removesuffix(".onnx") for part in model.manifest.parts]
    graphs = [name for name in graphs if name not in ("graph", "text")]  # images pass neither
    assert sorted(made) == sorted(graphs)


def test_who_needs_a_part_does_not_wait_for_another_one_to_be_preloaded(photos, monkeypatch):
    """The tail, where the background begins, takes for ever; the stem can be had meanwhile."""
    hold, made = threading.Event(), []

    def slow(path, settings, **more):
        if threading.current_thread().name == "lraee-preload" and path.stem == "tail":
            assert hold.wait(20)
        made.append(path.stem)
        return make_session(path, settings, **more)

    monkeypatch.setattr(part_sessions, "make_session", slow)
    model = lraee.load("reference", threads=1, preload=True)
    model._sessions["stem"]
    assert made == ["stem"]
    hold.set()
    wait_for_the_end()
    assert made.count("stem") == 1


def test_an_error_while_preloading_is_raised_where_the_part_is_used(forged):
    """As the same error, and not before; parts that are whole are preloaded nevertheless."""
    forged.damage("block_02.data")
    image = np.zeros((16, 16, 3), np.uint8)
    model = lraee.load(forged.folder, threads=1, preload=True)
    wait_for_the_end()
    assert set(model._sessions._made) == {"stem", "block_01", "exit_01", "tail"}
    assert model.classify(image, policy=lraee.ExitAt(1)).exit_block == 1
    for _ in range(2):
        with pytest.raises(BundleError, match=r"^block_02\.data has SHA-256"):
            model.classify(image, policy=lraee.Full())


def test_a_process_may_end_while_sessions_are_being_made():
    """Without a crash, and without waiting for all of them."""
    code = "import lraee; lraee.load('reference', threads=2, preload=True)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_many_threads_and_preloading_make_each_session_once(photos, monkeypatch):
    """The first one makes it, and the others wait."""
    made: list[str] = []
    monkeypatch.setattr(
        part_sessions, "make_session", lambda path, to, **more: made.append(path.stem) or make_session(path, to, **more)
    )
    model = lraee.load("reference", threads=1, preload=True)
    threads = [threading.Thread(target=model.classify, args=(photo,)) for photo in photos[:8]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wait_for_the_end()
    assert len(made) == len(set(made)) == 14 + len(model.manifest.exits)


@pytest.fixture
def every_file(monkeypatch):
    """Weights of any size are dropped, also those of the small reference."""
    monkeypatch.setattr(mapped_pages, "LEAST_BYTES", 1)


def test_low_memory_gives_the_same_answers(photos, model, every_file):
    """Bit for bit, again and again: whoever reads a page that was dropped gets it again."""
    low = lraee.load("reference", threads=2, memory="low")
    pixels = np.stack(photos)
    for policy in (lraee.Full(), lraee.Adaptive(), lraee.Full()):
        usual, got = model.run_pixels(pixels, policy=policy), low.run_pixels(pixels, policy=policy)
        assert np.array_equal(got.exit_block, usual.exit_block)
        assert got.probabilities == pytest.approx(usual.probabilities, abs=1e-5)
        assert np.array_equal(got.probabilities, low.run_pixels(pixels, policy=policy).probabilities)


@pytest.mark.skipif(sys.platform != "linux", reason="mappings are listed by Linux only")
def test_low_memory_keeps_no_weights_in_the_process(photos, every_file):
    """Each part's pages are mapped after its run, and none of them is resident."""
    low = lraee.load("reference", threads=1, memory="low")
    low.classify(photos[0], policy=lraee.Full())
    for name in ("stem", "block_01", "block_12"):
        spans = low._sessions._pages[name].spans
        assert spans, name
        assert resident_bytes(spans) == 0
    usual = lraee.load("reference", threads=1)
    usual.classify(photos[0], policy=lraee.Full())
    assert not usual._sessions._pages


def resident_bytes(spans: list[tuple[int, int]]) -> int:
    """How much of the spans is in memory, from /proc/self/pagemap."""
    page, total = mapped_pages.mmap.PAGESIZE, 0
    with open("/proc/self/pagemap", "rb") as pagemap:
        for start, end in spans:
            pagemap.seek(start // page * 8)
            entries = np.frombuffer(pagemap.read((end - start) // page * 8), np.uint64)
            total += int((entries >> np.uint64(63)).sum()) * page
    return total


def test_eight_threads_at_low_memory_get_the_answers_of_one(photos, every_file):
    """Although each drops the pages under the others' feet."""
    low = lraee.load("reference", threads=1, memory="low", preload=True)
    wanted = [low.classify(photo).top for photo in photos[:8]]
    wrong: list[int] = []

    def work(number: int) -> None:
        wrong.extend(number for _ in range(20) if low.classify(photos[number]).top != wanted[number])

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    wait_for_the_end()


LOAD_SECONDS = 0.06
"""For manifest, sizes of all files and labels; 5 ms on the two cores where this was written, 13 for a ViT-B/32."""


def test_opening_a_bundle_is_quick():
    """Best of five, so that other work on the machine does not count."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        lraee.load("reference", threads=1)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < LOAD_SECONDS
