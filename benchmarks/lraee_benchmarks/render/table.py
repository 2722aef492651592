"""A table, written once and rendered as Markdown here and as HTML by `lraee_benchmarks.render.page`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

MISSING = "-"
"""Stands in a cell whose number could not be measured."""

_BAR = r"\|"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Cells of plain text, in which `code` may stand in backticks."""

    title: str = ""
    """Short; stands above the table on a page."""
    note: str = ""
    """Says what the numbers mean, on a page."""
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Collection[int] = (0,)
    """Columns that hold words and are aligned left; the others hold numbers and are aligned right."""
    highlight: Collection[str] = ()
    """First cells of the rows that stand out on a page."""

    def to_markdown(self) -> str:
        r"""Render header and rows, without title, note and a last line break.

        >>> print(Table(header=["row", "ms"], rows=[["a|b", "1.25"]]).to_markdown())
        | row | ms |
        | --- | ---: |
        | a\|b | 1.25 |
        """
        rule = ["---" if column in self.words else "---:" for column in range(len(self.header))]
        lines = [self.header, rule, *self.rows]
        return "\n".join(f"| {' | '.join(cell.replace('|', _BAR) for cell in line)} |" for line in lines)
