"""The page is assembled and served by the commands of its document; a fault is told in one line."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from javascript_package import ROOT, Installed, Node
from markdown_files import fences

DOCUMENT = ROOT / "docs" / "browser.md"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["out"], "wanted a folder to write and at least one bundle"),
        (["out", "src"], "src is not a file; wanted the zip file of a bundle: python -m lraee zip BUNDLE"),
        (["out", "package.json"], "wanted a bundle written by lraee-export, or its zip file"),
        (["src", "{reference}"], "which this command did not write; name a new folder"),
        (
            ["out", "{reference}", "--ort", "src"],
            "src has no ort-wasm-simd-threaded.wasm; wanted a folder of onnxruntime-web",
        ),
        (["out", "{reference}", "{reference}"], "two bundles have the same file name; rename one"),
    ],
)
def test_what_cannot_be_assembled_is_told_in_one_line(
    npm_package: Installed, archives: dict[str, Path], words: list[str], said: str
) -> None:
    """And nothing is written."""
    done: subprocess.CompletedProcess[str] = npm_package.run(
        "assemble_page.js", *(word.format(**archives) for word in words), ok=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert said in line
    assert not (npm_package.home / "out").exists()


def test_the_commands_of_the_document_work(
    node: Node, npm_package: Installed, archives: dict[str, Path], tmp_path: Path
) -> None:
    """The page is assembled by npm, and served with the headers that the document names."""
    lines = [line for fence in fences(DOCUMENT) for line in fence.text.splitlines()]
    (assemble,) = (shlex.split(line) for line in lines if line.startswith("npm run page -- "))
    (serve,) = (shlex.split(line) for line in lines if line.startswith("python docs/programs/serve.py "))
    site, bundles = assemble[4], [str(archives[Path(word).stem]) for word in assemble[5:]]
    assert serve[2] == f"runtime/js/{site}"
    words = [*node.npm, *assemble[1:4], str(tmp_path / site), *bundles]
    environment = {**os.environ, "PATH": f"{Path(node.node).parent}:{os.environ['PATH']}"}
    done = subprocess.run(words, cwd=npm_package.home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    started = [sys.executable, "-u", str(ROOT / serve[1]), str(tmp_path / site), "--port", "0"]
    with subprocess.Popen(started, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        with urlopen(process.stdout.readline().split()[0]) as answer:
            sent = [f"{name}: {value}" for name, value in answer.headers.items()]
        process.terminate()
    assert {line for line in lines if line.startswith("Cross-Origin-")} <= set(sent)
    assert process.wait() == -signal.SIGTERM
