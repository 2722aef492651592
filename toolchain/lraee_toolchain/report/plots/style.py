"""One look for all plots, written as SVG that can stand in an HTML page.

Figures are built without pyplot, so nothing is shared between calls. The same input gives the same bytes: no date, no
random ids. Text stays text, so it can be searched and read aloud. Drawn for 360 px of width, where letters are as
large as a page's small print; wider pages scale it up.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import quoteattr

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WIDTH_INCHES, HEIGHT_INCHES = 4.8, 3.5

BLUE, RED, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY, BLACK = "#E69F00", "#56B4E9", "#767676", "#1A1A1A"
"""Okabe and Ito's palette, told apart by all kinds of colour vision; grey is for references."""
COLOURS = (BLUE, RED, GREEN, PURPLE, ORANGE, SKY)
PALE_GREY, PALE_SKY, PALE_ORANGE = "#E8E8E8", "#BFE0F5", "#FADDA0"
"""Of areas with words in them."""
GRID = "#E4E4E4"
"""Of the lines behind a plot."""
SHAPES = ("o", "s", "^", "D", "v", "P")
"""Of points, so that colour is never the only difference."""

LONG_LABEL = 30
"""Letters above which two names do not fit side by side."""

VARIABLES = {
    BLACK: "ink",
    GREY: "muted",
    GRID: "grid",
    "#FFFFFF": "paper",
    BLUE: "blue",
    RED: "red",
    GREEN: "green",
    PURPLE: "purple",
    ORANGE: "orange",
    SKY: "sky",
    PALE_GREY: "pale-grey",
    PALE_SKY: "pale-sky",
    PALE_ORANGE: "pale-orange",
}
"""Colours of the plots, and what the page's style sheet calls them."""

Place = Literal["outside upper left", "outside lower left"]

STYLE = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": BLACK,
    "axes.labelsize": 10,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": BLACK,
    "lines.linewidth": 1.8,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "legend.handlelength": 2.2,
    "axes.formatter.useoffset": False,
    "svg.fonttype": "none",
}


@dataclass(slots=True)
class Page:
    """A figure while it is drawn, and its SVG afterwards."""

    figure: Figure
    """To draw on."""
    svg: str = ""
    """Set when the ``with`` block of `page` ends."""

    def axes(self, x_label: str, y_label: str) -> Axes:
        """The only axes of a figure, labelled."""
        axes = self.figure.add_subplot()
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        return axes

    def legend(self, axes: Axes) -> None:
        """Name what has a label, outside the axes, where it covers nothing: lines and bars above, points below."""
        named = list(zip(*axes.get_legend_handles_labels(), strict=True))
        points = [entry for entry in named if isinstance(entry[0], ErrorbarContainer)]
        lines = [entry for entry in named if entry not in points]
        above: Place = "outside upper left"
        below: Place = "outside lower left"
        for entries, place in ((lines, above), (points, below)):
            if entries:
                handles, labels = zip(*entries, strict=True)
                columns = 2 if max(len(label) for label in labels) <= LONG_LABEL else 1
                self.figure.legend(handles, labels, loc=place, ncols=columns, columnspacing=1.2)


@contextmanager
def page(name: str, description: str, *, height_inches: float = HEIGHT_INCHES) -> Iterator[Page]:
    """Draw one figure in the project's style.

    Args:
        name: short and one per kind of plot; ids inside the SVG depend on it.
        description: what is to be seen, for screen readers.
        height_inches: at `WIDTH_INCHES` of width.
    """
    with matplotlib.style.context(["default", STYLE | {"svg.hashsalt": f"lraee-{name}"}]):
        drawn = Page(Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained"))
        yield drawn
        drawn.svg = to_svg(drawn.figure, description)


def to_svg(figure: Figure, description: str) -> str:
    """An ``<svg>`` element without prolog, metadata, style sheet or unused ids, as wide as its place allows."""
    text = io.StringIO()
    unknown = {"Date": None, "Creator": None, "Format": None, "Type": None}
    FigureCanvasSVG(figure)  # becomes the figure's canvas
    figure.savefig(text, format="svg", metadata=unknown)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", svg, count=1, flags=re.DOTALL)  # would style the page
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(?:width|height)="[^"]*"', "", head)
    strokes = "stroke-linejoin: round; stroke-linecap: butt"
    return f'{head} width="100%" style="{strokes}" role="img" aria-label={quoteattr(description)}>{rest.rstrip()}\n'


def themed(svg: str) -> str:
    """Replace colours by variables of the page's style sheet, so that plots follow light and dark, and use its font."""
    svg = re.sub(r'\sxmlns(?::\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        svg = re.sub(re.escape(colour) + r"\b", f"var(--{variable})", svg, flags=re.IGNORECASE)
    svg = re.sub(r"font-family: [^;\"]+", "font-family: var(--letters)", svg)
    return re.sub(r"(font: (?:\w+ )*[\d.]+px) [^;\"]+", r"\1 var(--letters)", svg)


def block_axis(axes: Axes, depth: int) -> None:
    """Blocks 1 to `depth` along x, whole numbers only."""
    axes.set_xlim(0.5, depth + 0.5)
    if depth <= 12:
        axes.set_xticks(range(1, depth + 1))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))


def draw_line(
    axes: Axes, number: int, label: str, x: Sequence[float], y: Sequence[float], *, marker: str | None = None
) -> None:
    """A line with points, whose colour and shape go by its number."""
    axes.plot(x, y, color=COLOURS[number % len(COLOURS)], marker=marker or SHAPES[number % len(SHAPES)], label=label)
