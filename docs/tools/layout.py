"""Draws how the code is laid out: rooms of each package on floors, with the imports between them as arrows.

    python docs/tools/layout.py            # writes docs/figures/layout-*.svg
    python docs/tools/layout.py --check    # says which would change, status 1

A room is a direct child of a package: a module or a sub-package. It stands one floor above the highest room that it
imports. An arrow that follows from two others is not drawn.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

from records import table

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "docs" / "figures"
PACKAGES = {
    "lraee": "runtime",
    "lraee_exporters": "exporters",
    "lraee_calibration_data": "calibration_data",
    "lraee_toolchain": "toolchain",
    "lraee_benchmarks": "benchmarks",
}
"""Each package and the folder that holds it."""

BOX, GAP, FLOOR, MARGIN = 28, 40, 72, 16
"""Height of a box, space between boxes, distance of floors and space around all, in pixels."""

Arrows = Mapping[str, set[str]]
"""What each room imports."""

STYLE = """<style>
text { font: 13px sans-serif; fill: #1f2328; text-anchor: middle; }
.page { fill: #ffffff; } .box { fill: #ddf4ff; stroke: #0969da; } .module { fill: #f6f8fa; stroke: #59636e; }
.arrow { stroke: #59636e; fill: none; } .tip { fill: #59636e; }
@media (prefers-color-scheme: dark) { text { fill: #f0f6fc; } .page { fill: #0d1117; }
.box { fill: #0c2d6b; stroke: #58a6ff; } .module { fill: #212830; stroke: #9198a1; }
.arrow { stroke: #9198a1; } .tip { fill: #9198a1; } }
</style>"""


def package_arrows() -> dict[str, set[str]]:
    """Imports between the five packages."""
    return {
        package: {name for path in (ROOT / folder / package).rglob("*.py") for name in _imported(path)}
        & (PACKAGES.keys() - {package})
        for package, folder in PACKAGES.items()
    }


def room_arrows(package: str) -> dict[str, set[str]]:
    """Imports between the rooms of a package."""
    root = ROOT / PACKAGES[package] / package
    arrows: dict[str, set[str]] = {}
    for path in sorted(root.rglob("*.py")):
        room = path.relative_to(root).parts[0].removesuffix(".py")
        if not room.startswith("__"):
            arrows.setdefault(room, set()).update(_imported(path, package))
    return {room: found & (arrows.keys() - {room}) for room, found in arrows.items()}


def packages_table() -> str:
    """Each folder with its package, what that is for, and what it imports."""
    rows = [
        [
            f"`{PACKAGES[name]}`",
            f"`{name}`",
            _purpose(ROOT / PACKAGES[name] / name),
            ", ".join(f"`{other}`" for other in sorted(found)),
        ]
        for name, found in package_arrows().items()
    ]
    return table(["folder", "package", "is for", "imports"], rows, left=4)


def rooms_table(package: str) -> str:
    """Each room of a package and what it is for, from the top floor down."""
    level = floors(room_arrows(package))
    root = ROOT / PACKAGES[package] / package
    rows = [[f"`{room}`", _purpose(root / room)] for room in sorted(level, key=lambda room: (-level[room], room))]
    return table(["room", "is for"], rows, left=2)


def make_targets() -> str:
    """The targets of the Makefile, as its first lines explain them."""
    found = re.findall(r"^#   make ([\w-]+) +(.+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    return table(["target", "does"], [[f"`make {name}`", words] for name, words in found], left=2)


def floors(arrows: Arrows) -> dict[str, int]:
    """The floor of each room: 0 imports no other room.

    >>> floors({"cli": {"model"}, "model": set()})
    {'cli': 1, 'model': 0}
    """

    def floor(room: str, above: tuple[str, ...] = ()) -> int:
        if room in above:
            raise ValueError(f"rooms import each other in a circle: {' -> '.join([*above, room])}")
        return max((1 + floor(below, (*above, room)) for below in arrows[room]), default=0)

    return {room: floor(room) for room in sorted(arrows)}


def draw(title: str, arrows: Arrows, sub_packages: set[str]) -> str:
    """The figure as SVG."""
    level = floors(arrows)
    rows = [[room for room in level if level[room] == floor] for floor in range(max(level.values()) + 1)]
    widths = {room: 8 * len(room) + 22 for room in level}
    row_widths = [sum(widths[room] for room in row) + GAP * (len(row) - 1) for row in rows]
    width, height = max(row_widths) + 2 * MARGIN, FLOOR * (len(rows) - 1) + BOX + 2 * MARGIN
    centre: dict[str, tuple[float, float]] = {}
    for floor, row in enumerate(rows):
        x, y = (width - row_widths[floor]) / 2, height - MARGIN - BOX / 2 - FLOOR * floor
        for room in _ordered(row, arrows, centre):
            centre[room] = (x + widths[room] / 2, y)
            x += widths[room] + GAP
    lines = []
    for room, below in sorted(_reduced(arrows).items()):
        for other in sorted(below):
            (x1, y1), (x2, y2) = centre[room], centre[other]
            y1, y2 = y1 + BOX / 2, y2 - BOX / 2 - 5
            bend = (y2 - y1) / 2
            path = f"M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
            lines.append(f'<path class="arrow" d="{path}" marker-end="url(#tip)"/>')
    boxes = [
        f'<rect class="{"box" if room in sub_packages else "module"}" x="{x - widths[room] / 2:.0f}" '
        f'y="{y - BOX / 2:.0f}" width="{widths[room]}" height="{BOX}" rx="5"/>'
        f'<text x="{x:.0f}" y="{y + 4:.0f}">{escape(room)}</text>'
        for room, (x, y) in centre.items()
    ]
    tip = '<marker id="tip" viewBox="0 0 8 8" refX="4" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'width="{width:.0f}" aria-label="{escape(title)}">'
    )
    tip += '<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker>'
    page = f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>'
    return "\n".join([head, STYLE, f"<defs>{tip}</defs>", page, *lines, *boxes, "</svg>", ""])


def figures() -> dict[str, str]:
    """Every figure by its file name."""
    found = {"layout-packages.svg": draw("Imports between the packages", package_arrows(), set(PACKAGES))}
    for package, folder in PACKAGES.items():
        if (arrows := room_arrows(package)) and package != "lraee_calibration_data":
            below = {path.name for path in (ROOT / folder / package).iterdir() if path.is_dir()}
            found[f"layout-{folder}.svg"] = draw(f"Imports between the rooms of {package}", arrows, below)
    return found


def _purpose(room: Path) -> str:
    """The first sentence of a module's or a package's docstring."""
    path = room / "__init__.py" if room.is_dir() else room.with_suffix(".py")
    docstring = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    text = re.sub(r"\s+", " ", docstring.partition("\n\n")[0])
    return re.split(r"(?<=\.) (?=[A-Z])", text)[0].replace("``", "`").replace("|", r"\|")


def _ordered(row: list[str], arrows: Arrows, centre: Mapping[str, tuple[float, float]]) -> list[str]:
    """Rooms of a floor from left to right, each near to what it imports."""

    def place(room: str) -> float:
        below = [centre[other][0] for other in arrows[room] if other in centre]
        return sum(below) / len(below) if below else 0.0

    return sorted(row, key=place)


def _reduced(arrows: Arrows) -> dict[str, set[str]]:
    """The arrows that do not follow from others."""

    def reached(room: str) -> set[str]:
        return arrows[room].union(*(reached(below) for below in arrows[room]))

    return {
        room: below - set().union(*(reached(other) for other in below)) if below else set()
        for room, below in arrows.items()
    }


def _imported(path: Path, package: str | None = None) -> set[str]:
    """Packages that a module imports, or with `package` the rooms of that package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    parts = [name.split(".") for name in names]
    if package is None:
        return {part[0] for part in parts}
    return {part[1] for part in parts if part[0] == package and len(part) > 1}


def main() -> int:
    """Write the figures, or with ``--check`` name those that would change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 if a figure would change")
    check = parser.parse_args().check
    old = 0
    for name, svg in figures().items():
        path = FIGURES / name
        if path.is_file() and path.read_text("utf-8") == svg:
            continue
        old += 1
        print(f"{path.relative_to(ROOT)} {'is out of date; run make figures' if check else 'was written'}")
        if not check:
            path.write_text(svg, "utf-8")
    return 1 if check and old else 0


if __name__ == "__main__":
    sys.exit(main())
