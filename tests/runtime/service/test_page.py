"""The page of the service in a browser: photos, a damaged one, labels, and what it says where it cannot answer."""

from __future__ import annotations

from pathlib import Path

from served import Service, serving

import lraee
from experiments.chromium import Browser, Tab
from lraee_calibration_data import photo_table

READY = "document.querySelectorAll('#policy option').length > 0"
CARDS = "document.querySelectorAll('.card').length"
WORDS = "document.getElementById('answers').innerText"


def classify(tab: Tab, *photos: Path) -> str:
    """Choose photos, press the button, and read all answers."""
    tab.choose("#files", *photos)
    tab.run("document.getElementById('answers').replaceChildren()")
    tab.run("document.getElementById('send').click()")
    tab.wait(f"{CARDS} === {len(photos)}")
    return str(tab.run(WORDS))


def test_photos_are_answered_and_a_damaged_one_is_named(
    service: Service, clothes: list[bytes], tab: Tab, tmp_path: Path
) -> None:
    """Each photo gets a card with its label and where it left, also at the width of a phone, and with other labels."""
    (tmp_path / "shirt.png").write_bytes(clothes[0])
    (tmp_path / "damaged.png").write_bytes(clothes[1][:100])
    tab.resize(390, 844, is_phone=True)
    tab.open(f"http://127.0.0.1:{service.port}/")
    tab.wait(READY)
    wanted = lraee.load("reference").classify(clothes[0])
    words = classify(tab, tmp_path / "shirt.png", tmp_path / "damaged.png")
    assert wanted.label in words
    assert f"left after block {wanted.exit_block} of 12" in words
    assert "damaged" in words.split("left after")[1]
    assert tab.run("document.documentElement.scrollWidth <= window.innerWidth")
    tab.run("document.getElementById('labels').value = 'footwear, garment'")
    assert {"footwear", "garment"} <= set(classify(tab, tmp_path / "shirt.png").split("\n"))


def test_a_token_is_asked_for(browser: Browser, tab: Tab, tmp_path: Path) -> None:
    """The page itself needs none; its first request is refused, and it shows a field for the token."""
    (tmp_path / "token").write_text("a-long-enough-secret-0123456789", "utf-8")
    with serving(tmp_path, "photo-clip", "--token-file", str(tmp_path / "token")) as started:
        tab.open(f"http://127.0.0.1:{started.port}/")
        tab.wait("!document.getElementById('token-row').hidden")
        tab.run("document.getElementById('token').value = 'a-long-enough-secret-0123456789'")
        coffee = photo_table().parent / "skimage-coffee.jpg"
        assert lraee.load("photo-clip").classify(coffee).label in classify(tab, coffee)
    assert [fault for fault in browser.faults() if "status of 401" not in fault] == []
    browser.events.clear()
