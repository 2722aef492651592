"""The documentation builds as a site without a warning, and reads nothing from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
import site_links
from markdown_files import ROOT

FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data"}
"""Elements that a browser fetches something for, and the attribute that says what."""


class Addresses(HTMLParser):
    """What a page fetches by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the address of one element; a link to the page's own address is not fetched."""
        values = dict(attrs)
        if tag in FETCHED and values.get("rel") != "canonical":
            self.fetched.append(values.get(FETCHED[tag]) or "")


def foreign(folder: Path) -> Iterator[str]:
    """Every address on another host that a page or style sheet of a site fetches."""
    for path in sorted(folder.rglob("*.html")):
        for address in Addresses(path.read_text("utf-8")).fetched:
            if re.match(r"(?:[a-z]+:)?//", address):
                yield f"{path.relative_to(folder)}: {address}"
    for path in sorted(folder.rglob("*.css")):
        for address in re.findall(r"""(?:url\(|@import )["']?((?:https?:)?//[^"')]+)""", path.read_text("utf-8")):
            yield f"{path.relative_to(folder)}: {address}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built from the checkout by the command of `make docs`; --strict refuses warnings and broken links."""
    folder = tmp_path_factory.mktemp("built") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return folder


def test_no_page_reads_from_another_host(built: Path) -> None:
    """Fonts, scripts, styles and pictures all come with the site, so that reading it tells nobody."""
    assert (built / "index.html").is_file()
    assert list(foreign(built)) == []


def test_every_page_that_the_repository_shows_is_on_the_site(built: Path) -> None:
    """Pages of the documentation, and files of the repository that they link to."""
    for path in (ROOT / "docs").glob("*.md"):
        assert (built / path.with_suffix(".html").name).is_file()
    assert (built / "repository" / "benchmarks" / "evidence" / "evidence.html").is_file()
    assert (built / "repository" / "benchmarks" / "figures" / "tower.svg").is_file()
    assert not (built / "tools").exists()


def test_links_are_turned_to_where_files_are_on_the_site() -> None:
    """Pages keep their place below docs; the rest lies below repository."""
    assert site_links.place(ROOT / "docs" / "use.md") == Path("use.md")
    assert site_links.place(ROOT / "benchmarks" / "x.json") == Path("repository/benchmarks/x.json")


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>', 1),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/x.css">', 1),
        ("a.html", '<script src="assets/x.js"></script><a href="https://example.org">link</a>', 0),
        ("a.css", "@import 'https://fonts.example/x.css';", 1),
        ("a.css", "div { background: url(assets/x.svg); }", 0),
    ],
)
def test_what_comes_from_another_host_is_found(tmp_path: Path, name: str, text: str, count: int) -> None:
    """Otherwise the test of the site would pass whatever it fetches; a link that somebody clicks is not fetched."""
    (tmp_path / name).write_text(text, "utf-8")
    assert len(list(foreign(tmp_path))) == count
