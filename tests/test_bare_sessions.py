"""No session of ONNX Runtime is made with options of its own, for its INT8 products could saturate without a word."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = ("runtime", "exporters", "toolchain", "calibration_data", "benchmarks", "tests")

TEXTS = {".py", ".md", ".sh", ".js", ".mjs", ".ts", ".html"}

BARE = re.compile(r"\b(?:InferenceSession(?:\.create)?|SessionOptions)\(")

ALLOWED = {
    "runtime/lraee/ort/sessions.py": "makes them all",
    "runtime/js/src/engine/sessions.js": "makes those of the JavaScript runtime",
    "runtime/js/src/ort/exact_kernel.js": "finds out whether products saturate without the option",
    "runtime/js/test/exact_kernel.test.js": "plays a machine where they do",
    "benchmarks/experiments/javascript_worker.mjs": "times one graph, with the options of the runtime",
    "tests/test_bare_sessions.py": "its examples",
    "benchmarks/experiments/one_file.py": "plays a program with default options, on one file",
    "tests/exporters/test_single_file.py": "plays a program with default options, on one file",
    "tests/exporters/int8/test_linear.py": "shows that fewer levels do not saturate without the option",
    "tests/toolchain/test_no_saturation.py": "shows that such bundles do not saturate without the option",
    "tests/runtime/ort/test_sessions.py": "plays other code of the process, and compares it with itself",
    "tests/benchmarks/scripts/test_hidden_features.py": "shows that products do saturate without the option",
}
"""Files that may, and why."""


def bare_sessions() -> dict[str, int]:
    """How many each file of the project makes, by its path."""
    files = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in TEXTS]
    counts = {
        path.relative_to(ROOT).as_posix(): len(BARE.findall(path.read_text("utf-8")))
        for path in [*files, *ROOT.glob("*.md")]
        if "node_modules" not in path.parts
    }
    return {name: count for name, count in counts.items() if count}


def test_every_session_is_made_by_lraee_sessions() -> None:
    """Its options are exact on this CPU; on AVX2 without VNNI a default session gives cosines down to 0.5."""
    bare = bare_sessions()
    assert not bare.keys() - ALLOWED.keys(), "use lraee.ort.sessions.make_session"
    assert bare.keys() == ALLOWED.keys(), "a file of the list makes none any more"


@pytest.mark.parametrize(
    "line",
    ["ort.InferenceSession(path)", "options = ort.SessionOptions()", "await ort.InferenceSession.create(path)"],
)
def test_a_bare_session_is_seen(line: str) -> None:
    """In Python and in JavaScript."""
    assert BARE.search(line)
