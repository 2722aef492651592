"""Recorded JSON files, and how their figures are written into documents.

cog calls the functions of this folder where a document names them, and puts what they return below::

    <!-- [[[cog show(early_exit_at_b32()) ]]] -->
    <!-- [[[end]]] -->

`make figures` writes the documents again after a record changed; `make check` fails until that was done.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


BENCHMARKS = ROOT / "benchmarks"


Record = Mapping[str, Any]
"""What a JSON file holds."""


def show(text: str) -> None:
    """Write a text where cog runs, with blank lines around it and its prose broken at 120 characters."""
    import cog

    paragraphs = (
        paragraph if paragraph.startswith(("|", "#", "-", "`", "*")) else _broken(paragraph)
        for paragraph in text.split("\n\n")
    )
    cog.outl("\n" + "\n\n".join(paragraphs) + "\n")


def evidence(study: str = "evidence") -> Record:
    """A report of `make evidence`: ``evidence``, ``outliers`` or ``b32-outliers``."""
    return read(BENCHMARKS / "evidence" / f"{study}.json")


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1) -> str:
    """A Markdown table whose first `left` columns are words and whose others are numbers.

    >>> print(table(["row", "ms"], [["full", "13.2"]]))
    | row | ms |
    | --- | ---: |
    | full | 13.2 |
    """
    rule = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, rule, *rows])


def percent(share: float, digits: int = 1) -> str:
    """A share of 1 as a percentage.

    >>> percent(0.5032)
    '50.3 %'
    """
    return f"{100 * share:.{digits}f} %"


def points(interval: Record) -> str:
    """A difference in percentage points with its interval."""
    mean, low, high = (100 * interval[key] for key in ("mean", "low", "high"))
    return f"{mean:+z.2f} ({low:+z.2f} to {high:+z.2f})"


def _broken(paragraph: str) -> str:
    return textwrap.fill(paragraph, 120, break_long_words=False, break_on_hyphens=False)


def read(path: Path) -> Record:
    """Read a JSON file that holds an object."""
    found: Record = json.loads(path.read_text("utf-8"))
    return found
