"""Which package may import which: the arrows point one way, and what runs on a board never asks for torch.

The files are parsed and not imported, so that an import inside a function counts too. That the base packages work
where nothing else is installed is `test_wheel`'s business.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = {
    "lraee": "runtime",
    "lraee_exporters": "exporters",
    "lraee_toolchain": "toolchain",
    "lraee_calibration_data": "calibration_data",
    "lraee_benchmarks": "benchmarks",
}
"""Each package and the folder at the top that holds it."""

ARROWS = {
    "lraee": set(),
    "lraee_exporters": {"lraee"},
    "lraee_toolchain": {"lraee", "lraee_exporters", "lraee_calibration_data", "lraee_benchmarks"},
    "lraee_calibration_data": {"lraee"},
    "lraee_benchmarks": {"lraee", "lraee_calibration_data"},
}
"""What each package may import of the others. To add an arrow is to change the architecture: first say why there."""

BASE = ("lraee", "lraee_calibration_data", "lraee_benchmarks")
"""Packages that work with the base dependencies alone."""

EXTRAS = {"torch", "torchvision", "open_clip", "onnx", "safetensors", "matplotlib", "openvino", "PIL"}
"""What base packages may import in functions only (Pillow, OpenVINO) or not at all."""

NEVER_IN_BASE = {"torch", "torchvision", "open_clip", "onnx", "safetensors", "matplotlib"}
"""What base packages may import nowhere, but for `TORCH_ROW`."""

TORCH_ROW = "benchmarks/lraee_benchmarks/rows/torch_row.py"
"""The row of ``lraee-bench --baselines torch`` is torch: it runs when asked for by name, and refuses where torch is not
installed. Its imports stand in functions, as the test before holds."""


def sources(package: str) -> list[Path]:
    """Every module of a package."""
    found = sorted((ROOT / FOLDERS[package] / package).rglob("*.py"))
    assert found, f"{FOLDERS[package]}/{package} has no modules; mend FOLDERS in this test"
    return found


def scripts(package: str) -> list[Path]:
    """Every Python file of a package's folder that is no part of the package: scripts that run by their path."""
    folder = ROOT / FOLDERS[package]
    return sorted(path for path in folder.rglob("*.py") if folder / package not in path.parents)


def imported(tree: ast.AST, *, at_import: bool = False) -> Iterator[tuple[int, str]]:
    """Line and top-level name of every import; relative imports stay inside a package and are left out.

    Args:
        tree: of a module.
        at_import: only what importing the module executes: not the bodies of functions, nor of `if TYPE_CHECKING`.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level == 0 and node.module is not None:
                yield node.lineno, node.module.partition(".")[0]
        elif at_import and isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for otherwise in node.orelse:
                yield from imported(ast.Module([otherwise], []), at_import=True)
        elif not (at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield from imported(node, at_import=at_import)


def offences(
    package: str, refused: set[str], *, at_import: bool = False, paths: Iterable[Path] | None = None
) -> list[str]:
    """Where files, by default those of a package, import something they must not: ``path:line imports name``."""
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in (sources(package) if paths is None else paths)
        for line, name in imported(ast.parse(path.read_text("utf-8")), at_import=at_import)
        if name in refused
    ]


@pytest.mark.parametrize("package", FOLDERS)
def test_a_package_imports_only_those_it_may(package: str) -> None:
    """The arrows of `ARROWS`, at the top of a module and inside functions alike."""
    refused = set(FOLDERS) - ARROWS[package] - {package}
    found = offences(package, refused)
    assert not found, f"{package} may import {sorted(ARROWS[package]) or 'none of the others'}; move the code: {found}"


@pytest.mark.parametrize("package", FOLDERS)
def test_a_script_imports_only_what_the_package_beside_it_may(package: str) -> None:
    """Scripts of a folder obey its arrows, or folders would form a circle; they may call commands instead."""
    refused = set(FOLDERS) - ARROWS[package] - {package}
    found = offences(package, refused, paths=scripts(package))
    assert not found, f"scripts in {FOLDERS[package]} may not import that; call the command instead: {found}"


def test_scripts_are_found() -> None:
    """The test before has something to look at."""
    names = {path.relative_to(ROOT).as_posix() for path in scripts("lraee_benchmarks")}
    assert {
        "benchmarks/experiments/towers/towers.py",
        "benchmarks/experiments/text_precisions.py",
        "benchmarks/experiments/retrieval.py",
    } <= names


@pytest.mark.parametrize("package", BASE)
def test_importing_a_base_package_imports_no_extra(package: str) -> None:
    """A board without Pillow can still classify arrays."""
    assert not offences(package, EXTRAS, at_import=True)


@pytest.mark.parametrize("package", BASE)
def test_a_base_package_never_imports_what_only_an_export_needs(package: str) -> None:
    """Not even inside a function; the one exception compares with torch itself."""
    assert not [offence for offence in offences(package, NEVER_IN_BASE) if not offence.startswith(f"{TORCH_ROW}:")]


def test_every_folder_with_a_package_is_known() -> None:
    """A new package must take its place among the arrows."""
    packages = {path.parent.name: path.parent.parent.name for path in ROOT.glob("*/lraee*/__init__.py")}
    assert packages == FOLDERS
    assert set(ARROWS) == set(FOLDERS)


def test_no_arrow_leads_back() -> None:
    """Following the arrows from a package never comes back to it."""
    for start in ARROWS:
        reached, ahead = set(), list(ARROWS[start])
        while ahead:
            package = ahead.pop()
            reached.add(package)
            ahead += ARROWS[package] - reached
        assert start not in reached


@pytest.mark.parametrize(
    ("code", "everywhere", "when_imported"),
    [
        ("import torch.nn as nn", {"torch"}, {"torch"}),
        ("from lraee.errors import LraeeError", {"lraee"}, {"lraee"}),
        ("from . import sibling", set(), set()),
        ("def f():\n    import onnx", {"onnx"}, set()),
        ("class A:\n    import onnx\n    def f(self):\n        import PIL", {"onnx", "PIL"}, {"onnx"}),
        ("try:\n    import torch\nexcept ImportError:\n    import onnx", {"torch", "onnx"}, {"torch", "onnx"}),
        ("if TYPE_CHECKING:\n    import PIL\nelse:\n    import onnx", {"PIL", "onnx"}, {"onnx"}),
    ],
)
def test_imports_are_found_wherever_they_stand(code: str, everywhere: set[str], when_imported: set[str]) -> None:
    """The finder itself: functions run later, class bodies and `try` run at once."""
    tree = ast.parse(code)
    assert {name for _, name in imported(tree)} == everywhere
    assert {name for _, name in imported(tree, at_import=True)} == when_imported
