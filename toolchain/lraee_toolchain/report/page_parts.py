"""Blocks of the page that only an export's report has: the drawing of the tower and the example images."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby

from markupsafe import Markup

from lraee_benchmarks.render import page
from lraee_toolchain.evaluation.example_images import Picture
from lraee_toolchain.evaluation.merged_patches import MergedPicture
from lraee_toolchain.report.plots.style import themed

PACKAGE = __name__.rpartition(".")[0]


def style() -> str:
    """Read the rules of CSS for these blocks."""
    return files(PACKAGE).joinpath("report.css").read_text("utf-8")


def plot_html(svg: str, caption: str, *, alone: bool = False) -> Markup:
    """Render one of our plots in the colours of the page; see `lraee_benchmarks.render.page.plot_html`."""
    return page.plot_html(themed(svg), caption, alone=alone)


def drawing_html(wide: str, narrow: str, caption: str) -> Markup:
    """Render a drawing in two widths, of which the page shows the one that fits."""
    return Markup(page.macros(PACKAGE, "page_parts.html.jinja").drawing(Markup(wide), Markup(narrow), caption))


def pictures_html(pictures: Sequence[Picture]) -> Markup:
    """Render pictures, which come sorted by the place where they left, under a heading for each place."""
    places = []
    for (block, early), group in groupby(pictures, key=lambda picture: (picture.block, picture.early)):
        title = f"Early exit after block {block}" if early else f"Ran to the end, block {block}"
        places.append((title, list(group)))
    return Markup(page.macros(PACKAGE, "page_parts.html.jinja").pictures(places))


def merged_html(pictures: Sequence[MergedPicture]) -> Markup:
    """Render pictures whose merged patches are drawn as one."""
    return Markup(page.macros(PACKAGE, "page_parts.html.jinja").merged(pictures))
