"""A table of a report, written once and rendered as Markdown and as HTML."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MISSING = "-"
"""In a cell whose number could not be measured."""

FEW_COLUMNS = 4
"""Tables of so many are not drawn over the whole width, where the eye would lose the row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Plain text; the first column names the row, the others hold numbers."""

    title: str
    """Short; a heading in Markdown."""
    note: str = ""
    """What the numbers mean; `code` in backticks."""
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    highlight: Sequence[str] = ()
    """Names of rows that stand out."""
    text: bool = False
    """Whether the other columns hold words, which are left-aligned."""

    def to_markdown(self) -> str:
        """The rows without title and note."""
        lines = [_row(self.header), "|---|" + ("---|" if self.text else "---:|") * (len(self.header) - 1)]
        return "\n".join([*lines, *(_row(row) for row in self.rows)])

    def to_html(self) -> str:
        """A figure whose rows scroll in a box of their own."""
        head = "".join(f'<th scope="col">{prose(cell)}</th>' for cell in self.header)
        body = "\n".join(self._html_row(row) for row in self.rows)
        note = f' <span class="note">{prose(self.note)}</span>' if self.note else ""
        kind = "table words" if self.text else "table few" if len(self.header) <= FEW_COLUMNS else "table"
        return (
            f'<figure class="{kind}"><figcaption><b>{prose(self.title)}</b>{note}</figcaption>\n'
            f'<div class="scroll" role="region" tabindex="0" aria-label="{html.escape(self.title)}">'
            f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div></figure>"
        )

    def _html_row(self, row: Sequence[str]) -> str:
        kind = ' class="chosen"' if row[0] in self.highlight else ""
        cells = "".join(f"<td>{_cell(cell)}</td>" for cell in row[1:])
        return f'<tr{kind}><th scope="row">{prose(row[0])}</th>{cells}</tr>'


def prose(text: str) -> str:
    """Escaped for HTML; what stands in backticks becomes code.

    >>> prose("`a<b`: fine")
    '<code>a&lt;b</code>: fine'
    """
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", html.escape(text))


def percent(share: float, digits: int = 2) -> str:
    """A share from 0 to 1 as percent; nothing is never less than nothing.

    >>> percent(0.5, 1), percent(-0.00001, 1)
    ('50.0 %', '0.0 %')
    """
    return f"{round(100 * share, digits) + 0.0:.{digits}f} %"


def accuracy(interval: Mapping[str, float]) -> str:
    """A share with its interval, in percent."""
    return f"{percent(interval['mean'])} [{100 * interval['low']:.2f}, {100 * interval['high']:.2f}]"


def points(interval: Mapping[str, float]) -> str:
    """A difference of shares in points, with its interval.

    >>> points({"mean": 0.01, "low": -0.01, "high": 0.03})
    '+1.00 [-1.00, +3.00]'
    """
    return f"{100 * interval['mean']:+.2f} [{100 * interval['low']:+.2f}, {100 * interval['high']:+.2f}]"


def listed(items: Sequence[object]) -> str:
    """Joined for reading.

    >>> listed([4, 5, 8])
    '4, 5 and 8'
    """
    words = [str(item) for item in items]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _cell(cell: str) -> str:
    """Intervals are set smaller than their mean."""
    found = re.fullmatch(r"(.*\S) (\[.*\])", cell)
    return f'{prose(found[1])} <span class="interval">{html.escape(found[2])}</span>' if found else prose(cell)
