"""One HTML page that needs no other file and no network, from sections of text, tiles, tables and plots.

The HTML stands in templates, which escape every text they are given; what is HTML already comes as `markupsafe.Markup`,
as the functions here return it. Other packages add templates and styles of their own: `macros` loads them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from lraee_benchmarks.render.table import Table

PACKAGE = __name__.rpartition(".")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """One number of the headline."""

    name: str
    value: str
    notes: Sequence[str] = ()
    """One line each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One chapter of the page, which the list of links at the top leads to."""

    anchor: str
    """Its id, unique on the page."""
    title: str
    body: Sequence[Markup]


def prose(text: str) -> Markup:
    """Escape plain text and turn what stands in backticks into code.

    >>> prose("`a<b`: fine")
    Markup('<code>a&lt;b</code>: fine')
    """
    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))


def cell(text: str) -> Markup:
    """Format a cell like `prose`, with an interval at its end set smaller than the mean."""
    found = re.fullmatch(r"(.*\S) (\[.*\])", text)
    return prose(text) if found is None else Markup('{} <span class="interval">{}</span>').format(
        prose(found[1]), found[2]
    )  # fmt: skip


@cache
def macros(package: str, template: str) -> Any:
    """Load the macros of a template, which return `Markup` and know the filters ``prose``, ``cell`` and ``base64``.

    Args:
        package: that the template lies in, such as ``lraee_benchmarks.render``.
        template: its file name, such as ``blocks.html.jinja``.
    """
    loader = PackageLoader(package, "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(prose=prose, cell=cell, base64=lambda data: base64.b64encode(data).decode("ascii"))
    return environment.get_template(template).module


def _block(macro: str, *values: object) -> Markup:
    return Markup(getattr(macros(PACKAGE, "blocks.html.jinja"), macro)(*values))


def paragraph(text: str, kind: str = "") -> Markup:
    """Render a paragraph; `kind` is its class: ``lead``, ``notice``, ``small`` or none."""
    return _block("paragraph", text, kind)


def bullets(lines: Sequence[str]) -> Markup:
    """Render a list."""
    return _block("bullets", lines)


def code(lines: Sequence[str], label: str) -> Markup:
    """Render lines for a shell; `label` is for screen readers."""
    return _block("code", "\n".join(lines), label)


def tiles_html(tiles: Sequence[Tile]) -> Markup:
    """Render the numbers of the headline."""
    return _block("tiles", tiles)


def table_html(table: Table) -> Markup:
    """Render a table with title and note; it scrolls in a box of its own."""
    return _block("table", table)


def plot_html(svg: str, caption: str, *, alone: bool = False) -> Markup:
    """Render a plot with its caption.

    Args:
        svg: an ``<svg>`` element that may be trusted; its colours should be variables of ``page.css``.
        caption: plain text.
        alone: whether no other plot stands next to it; then the caption does, where the page is wide.
    """
    return _block("plot", Markup(svg), caption, alone)


def side_by_side(figures: Sequence[Markup]) -> Markup:
    """Put figures next to each other where the page is wide."""
    return _block("side_by_side", figures)


def page_html(title: str, head: Sequence[Markup], sections: Sequence[Section], *, style: str = "") -> str:
    """Render the whole file.

    Args:
        title: plain text; the only h1.
        head: blocks above the first section.
        sections: in order.
        style: rules of CSS besides those of ``page.css``, for blocks of other packages.
    """
    css = Markup(files(PACKAGE).joinpath("page.css").read_text("utf-8") + style)
    return _block("page", title, head, sections, css) + "\n"
