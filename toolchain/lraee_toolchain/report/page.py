"""The page of a report: building blocks, and all of them in one file that needs no other and no network.

Text from elsewhere is escaped here (`prose`), wherever it enters. Plots are drawn for white paper; their colours become
variables of the style sheet, so that they follow light and dark.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from lraee_toolchain.evaluation.example_images import Picture
from lraee_toolchain.report.plots.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    GRID,
    ORANGE,
    PALE_GREY,
    PALE_ORANGE,
    PALE_SKY,
    PURPLE,
    RED,
    SKY,
)
from lraee_toolchain.report.table import prose

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
"""Colours of the plots, and what the style sheet calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number of the headline."""

    name: str
    value: str
    notes: Sequence[str]
    """One line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One chapter of the page."""

    anchor: str
    title: str
    body: Sequence[str]
    """HTML."""


def paragraph(text: str, kind: str = "") -> str:
    """Plain text with `code` in backticks."""
    return f'<p class="{kind}">{prose(text)}</p>' if kind else f"<p>{prose(text)}</p>"


def tiles_html(tiles: Sequence[Tile]) -> str:
    """The headline."""
    cells = [
        f'<div class="tile"><dt>{prose(tile.name)}</dt><dd class="value">{prose(tile.value)}</dd>'
        + "".join(f'<dd class="about">{prose(note)}</dd>' for note in tile.notes)
        + "</div>"
        for tile in tiles
    ]
    return f'<dl class="tiles">\n{chr(10).join(cells)}\n</dl>'


def plot_html(svg: str, caption: str, *, alone: bool = False) -> str:
    """A plot with its caption.

    Args:
        svg: from `lraee_toolchain.report.plots.exits`.
        caption: plain text.
        alone: whether no other plot stands beside it; then the caption does, where the page is wide.
    """
    kind = "plot alone" if alone else "plot"
    return f'<figure class="{kind}">{_themed(svg)}<figcaption>{prose(caption)}</figcaption></figure>'


def drawing_html(wide: str, narrow: str, caption: str) -> str:
    """A drawing in two widths, of which the page shows the one that fits."""
    drawings = f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
    return f"<figure>{drawings}<figcaption>{prose(caption)}</figcaption></figure>"


def side_by_side(figures: Sequence[str]) -> str:
    """Figures next to each other where the page is wide."""
    return f'<div class="figures">{"".join(figures)}</div>'


def pictures_html(pictures: Sequence[Picture]) -> str:
    """Pictures by the place where they left."""
    places: dict[tuple[int, bool], list[Picture]] = {}
    for picture in pictures:
        places.setdefault((picture.block, picture.early), []).append(picture)
    groups = []
    for (block, early), group in places.items():
        title = f"Left behind block {block}" if early else f"Ran to the end, block {block}"
        items = "\n".join(_picture(picture) for picture in group)
        groups.append(f'<div class="place"><h3>{title}</h3>\n<ul class="pictures">\n{items}\n</ul></div>')
    return "\n".join(groups)


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    if picture.right is None:
        kind, alt, words = "unknown", f"answered {picture.predicted}", prose(picture.predicted)
    elif picture.right:
        kind, alt = "right", f"{picture.predicted}, answered rightly"
        words = f'<b aria-hidden="true">✓</b> {prose(picture.predicted)}'
    else:
        kind, alt = "wrong", f"{picture.label}, wrongly answered {picture.predicted}"
        words = f'<b aria-hidden="true">✗</b> {prose(picture.predicted)}'
        words += f'<span class="truth">is {prose(picture.label or "another")}</span>'
    image = f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt)}">'
    return f'<li class="{kind}">{image}<span class="answer">{words}</span></li>'


def commands_html(commands: Sequence[str]) -> str:
    """Lines for a shell."""
    lines = html.escape("\n".join(commands))
    return f'<div class="scroll" role="region" tabindex="0" aria-label="Commands"><pre><code>{lines}</code></pre></div>'


def page_html(title: str, head: Sequence[str], sections: Sequence[Section]) -> str:
    """The whole file.

    Args:
        title: plain text, also the only h1.
        head: HTML above the first section.
        sections: in order.
    """
    style = files("lraee_toolchain.report").joinpath("report.css").read_text("utf-8")
    links = "".join(f'<li><a href="#{section.anchor}">{prose(section.title)}</a></li>' for section in sections)
    chapters = "\n".join(
        f'<section id="{section.anchor}" aria-labelledby="{section.anchor}-title">'
        f'<h2 id="{section.anchor}-title">{prose(section.title)}</h2>\n{chr(10).join(section.body)}\n</section>'
        for section in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{prose(title)}</h1>\n{chr(10).join(head)}\n</header>\n"
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>\n<main>\n{chapters}\n</main>\n</body>\n</html>\n'
    )


def _themed(svg: str) -> str:
    """Colours as variables, and the page's letters."""
    svg = re.sub(r'\sxmlns(?::\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    for colour, variable in VARIABLES.items():
        svg = re.sub(re.escape(colour) + r"\b", f"var(--{variable})", svg, flags=re.IGNORECASE)
    svg = re.sub(r"font-family: [^;\"]+", "font-family: var(--letters)", svg)
    return re.sub(r"(font: (?:\w+ )*[\d.]+px) [^;\"]+", r"\1 var(--letters)", svg)
