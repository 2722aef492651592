"""Reads a table of image files and their right labels, with which answers are compared."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lraee.errors import DataError, LabelsError

COLUMNS = ("file", "label")
"""Columns that the first line of a table must name; ``attribution`` and ``licence`` are read too, others are not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a table says of one image."""

    label: str | None
    """The right label, or None where the table has none."""
    credit: str
    """Author and licence, to be shown beside the image; empty where the table has none."""


def read_truth(path: Path, labels: Sequence[str]) -> dict[str, Truth]:
    """Read a table with tabs between its columns and names in its first line.

    Args:
        path: UTF-8; files are named in it relative to its folder, or with their whole path.
        labels: that the model knows; every label of the table must be among them.

    Returns:
        By the file's real path.

    Raises:
        DataError: the table cannot be read, lacks a column, or names a file twice.
        LabelsError: a label is none of the model's.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
            columns, rows = tuple(reader.fieldnames or ()), list(reader)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as a table: {error}; wanted UTF-8 with tabs between columns") from error
    if missing := [column for column in COLUMNS if column not in columns]:
        met = ", ".join(columns)[:60] or "nothing"
        raise DataError(f"{path}: the first line is {met!r} and lacks {missing[0]!r}; name the columns file and label")
    found: dict[str, Truth] = {}
    for number, row in enumerate(rows, start=2):
        cells = {column: (value or "").strip() for column, value in row.items() if isinstance(column, str)}
        place, label = os.path.realpath(path.parent / cells["file"]), cells["label"] or None
        if place in found:
            raise DataError(f"{path}: line {number} names {cells['file']} again; give each file once")
        if label is not None and label not in labels:
            raise LabelsError(
                f"{path}: line {number} has the label {label!r}, which is none of the model's {len(labels)}; "
                "leave the cell empty where the model has no such label"
            )
        credit = ", ".join(filter(None, (cells.get("attribution", "").split(" | ")[0], cells.get("licence", ""))))
        found[place] = Truth(label=label, credit=credit)
    return found
