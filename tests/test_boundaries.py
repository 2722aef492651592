"""Holds the architecture: which package and which sub-package imports which, and how large modules may become.

The files are parsed and not imported, so that an import inside a function counts too. What runs on a board never
imports torch; that the base packages work where nothing else is installed is `test_wheel`'s business.

Inside a package, rooms are its direct children (modules and sub-packages), and arrows the imports between different
children. The ``__init__`` of each sub-package names the rooms that it may import: ``May import: parts, config.``
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
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

SERVING = {"fastapi", "starlette", "pydantic", "uvicorn", "httptools", "prometheus_client"}
"""What the extra `serve` brings; only the room `SERVICE` imports it."""

SERVICE = "runtime/lraee/service/"
"""The room that is a service. Its modules may import `SERVING` as they are imported, since everything else imports them
inside functions alone."""

EXTRAS = {"torch", "torchvision", "open_clip", "onnx", "safetensors", "matplotlib", "openvino", "PIL", *SERVING}
"""What base packages may import in functions only (Pillow, OpenVINO), in one room (`SERVING`), or not at all."""

NEVER_IN_BASE = {"torch", "torchvision", "open_clip", "onnx", "safetensors", "matplotlib"}
"""What base packages may import nowhere, but for `TORCH_ROW`."""

TORCH_ROW = "benchmarks/lraee_benchmarks/rows/torch_row.py"
"""The row of ``lraee-bench --baselines torch`` is torch: it runs when asked for by name, and refuses where torch is not
installed. Its imports stand in functions, as the test before holds."""

MOST_ROOMS = {"lraee_toolchain": (20, 60), "lraee_benchmarks": (12, 35)}
"""Rooms and arrows that a package may have at most."""

LEAST_SUB_PACKAGES = {"lraee_toolchain": 6}

MOST_MODULES = 14
"""Modules of one sub-package."""

MOST_LINES = 350
"""Lines of one file."""

MOST_FUNCTION_LINES = 60
"""Lines of one function, but for commands: those of typer are as long as their options."""

MOST_ARGUMENTS = 6
"""Arguments of one function, but for commands and `PUBLIC_SIGNATURES`."""

PUBLIC_SIGNATURES = {("lraee.loading", "load"), ("lraee.model", "classify_stream")}
"""Functions that users call with keywords: an object in place of these would break their programs."""

MAY_IMPORT = re.compile(r"May import: ([\w, .]+)\.$", re.MULTILINE)
"""The line of a sub-package that names the rooms which it may import, or ``nothing``."""


def sources(package: str) -> list[Path]:
    """List the files of a package."""
    found = sorted((ROOT / FOLDERS[package] / package).rglob("*.py"))
    assert found, f"{FOLDERS[package]}/{package} has no modules; correct FOLDERS in this test"
    return found


def scripts(package: str) -> list[Path]:
    """Find the Python files of a package's folder outside the package: scripts that run by their path."""
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


def imported_modules(tree: ast.Module) -> Iterator[str]:
    """Dotted name of every module that importing a module imports at its top level."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_of_the_service(offence: str) -> bool:
    """Whether what `offences` found stands in the room that is a service."""
    return offence.startswith(SERVICE)


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
    """A board without Pillow can still classify arrays, and one without FastAPI everything but serve."""
    assert not [offence for offence in offences(package, EXTRAS, at_import=True) if not is_of_the_service(offence)]
    assert not offences(package, EXTRAS - SERVING, at_import=True)


@pytest.mark.parametrize("package", FOLDERS)
def test_what_a_service_needs_is_imported_by_its_room_alone(package: str) -> None:
    """Not even inside functions of others."""
    assert not [offence for offence in offences(package, SERVING) if not is_of_the_service(offence)]


def test_the_service_is_imported_inside_functions_alone() -> None:
    """By the command that starts it; otherwise importing lraee would need the extra `serve`."""
    found = []
    for path in (path for package in FOLDERS for path in sources(package)):
        if not path.relative_to(ROOT).as_posix().startswith(SERVICE):
            tree = ast.parse(path.read_text("utf-8"))
            found += [path.name for name in imported_modules(tree) if f"{name}.".startswith("lraee.service.")]
    assert found == []
    assert any(name.startswith("lraee.service.") for name in module_arrows("lraee")["lraee.cli"])


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


@cache
def modules(package: str) -> dict[str, ast.Module]:
    """Parse every module of a package, by its dotted name."""
    parsed = {}
    for path in sources(package):
        parts = path.relative_to(ROOT / FOLDERS[package]).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        parsed[name] = ast.parse(path.read_text("utf-8"))
    return parsed


@cache
def module_arrows(package: str) -> dict[str, set[str]]:
    """Modules of the package that each module imports, at its top and inside functions."""
    known = modules(package)
    arrows: dict[str, set[str]] = {name: set() for name in known}
    for module, tree in known.items():
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                assert not node.level, f"{module} imports relatively; name the package, so that arrows can be read"
                deeper = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name in known else node.module for name in deeper]
            arrows[module] |= {name for name in names if name in known and name != module}
    return arrows


def sub_packages(package: str) -> dict[str, str]:
    """Docstring of each sub-package, at any depth, by its dotted name."""
    folders = {".".join(path.parent.relative_to(ROOT / FOLDERS[package]).parts) for path in sources(package)}
    return {name: ast.get_docstring(modules(package)[name]) or "" for name in sorted(folders - {package})}


def room_arrows(package: str) -> dict[str, set[str]]:
    """Rooms that each room imports; the package's own ``__init__`` is none."""
    arrows: dict[str, set[str]] = {}
    for module, reached in module_arrows(package).items():
        if module != package:
            room = module.split(".")[1]
            there = {name.split(".")[1] for name in reached if name != package}
            arrows.setdefault(room, set()).update(there - {room})
    return arrows


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """One circle of a graph, empty if there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def functions(package: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with the name of its module, but for commands of typer."""
    for module, tree in modules(package).items():
        for node in ast.walk(tree):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and not any(".command(" in ast.unparse(decorator) for decorator in node.decorator_list):
                yield module, node


def argument_count(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Arguments of a function, without ``self`` or ``cls``."""
    given = function.args
    positional = [*given.posonlyargs, *given.args]
    is_method = bool(positional) and positional[0].arg in ("self", "cls")
    return len(positional) + len(given.kwonlyargs) - is_method


@pytest.mark.parametrize("package", FOLDERS)
def test_a_sub_package_imports_only_the_rooms_that_its_line_names(package: str) -> None:
    """A new import between rooms is a change of the architecture: its line says so first."""
    wrong = []
    for name, docstring in sub_packages(package).items():
        line = MAY_IMPORT.search(docstring)
        assert line is not None, f"{name}: its docstring lacks the line 'May import: ROOM, ROOM.' (or nothing)"
        allowed = set() if line[1] == "nothing" else set(line[1].split(", "))
        assert allowed <= set(room_arrows(package)), f"{name} may import {sorted(allowed - set(room_arrows(package)))}"
        for module, reached in module_arrows(package).items():
            if f"{module}.".startswith(f"{name}."):
                outside = (there for there in reached if not f"{there}.".startswith(f"{name}.") and there != package)
                wrong += [f"{module} imports {there}" for there in outside if there.split(".")[1] not in allowed]
    assert not wrong, f"name the room in the sub-package's __init__, or move the code: {wrong}"


@pytest.mark.parametrize("package", FOLDERS)
def test_no_modules_and_no_rooms_form_a_circle(package: str) -> None:
    """Whoever reads a module needs to know only modules below it."""
    assert circle(module_arrows(package)) == []
    assert circle(room_arrows(package)) == []


@pytest.mark.parametrize("package", MOST_ROOMS)
def test_a_package_has_few_rooms_and_arrows(package: str) -> None:
    """More rooms than a newcomer can hold in mind want another floor of sub-packages."""
    arrows = room_arrows(package)
    rooms, most = MOST_ROOMS[package]
    assert len(arrows) <= rooms, sorted(arrows)
    assert sum(map(len, arrows.values())) <= most, arrows


@pytest.mark.parametrize("package", FOLDERS)
def test_a_sub_package_has_few_modules(package: str) -> None:
    """And the toolchain at least six sub-packages."""
    found = sub_packages(package)
    held = {name: [there for there in modules(package) if there.rpartition(".")[0] == name] for name in found}
    assert {name: len(inside) for name, inside in held.items() if len(inside) > MOST_MODULES} == {}
    assert len(room_arrows(package).keys() & {name.split(".")[1] for name in found}) >= LEAST_SUB_PACKAGES.get(
        package, 0
    )


@pytest.mark.parametrize("package", FOLDERS)
def test_files_and_functions_are_short(package: str) -> None:
    """A file holds one idea, and a function takes few arguments."""
    lines = {path.relative_to(ROOT).as_posix(): len(path.read_text("utf-8").splitlines()) for path in sources(package)}
    long_files = [f"{path} has {count} lines" for path, count in lines.items() if count > MOST_LINES]
    complaints = []
    for module, node in functions(package):
        length, arguments = (node.end_lineno or 0) - node.lineno + 1, argument_count(node)
        if length > MOST_FUNCTION_LINES:
            complaints.append(f"{module}.{node.name} has {length} lines")
        if arguments > MOST_ARGUMENTS and (module, node.name) not in PUBLIC_SIGNATURES:
            complaints.append(f"{module}.{node.name} takes {arguments} arguments")
    assert long_files + complaints == []


def test_the_rules_see_what_they_forbid() -> None:
    """The finders themselves: a circle is found, and an argument counted wherever it stands."""
    assert set(circle({"a": {"b"}, "b": {"a"}, "c": {"a"}})) == {"a", "b"}
    assert circle({"a": {"b"}, "b": set()}) == []
    (method,) = ast.parse("def f(self, a, /, b, *c, d=1, **e): pass").body
    assert isinstance(method, ast.FunctionDef)
    assert argument_count(method) == 3
    assert room_arrows("lraee")["ort"] == {"bundle", "errors"}
    assert MAY_IMPORT.search("Quantize. May import: parts, config.")
