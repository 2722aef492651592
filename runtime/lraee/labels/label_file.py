"""The forms of a label file: lines, a table, JSON; each may map folders of images to labels.

Apart from `lraee.labels.label_set`, so that loading a bundle imports no reader of tables.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

from lraee.errors import LabelsError
from lraee.labels.label_set import LabelSet, normal_form

Pairs = list[tuple[str, str]]
"""Folder and label of each line; the same name twice where the file says nothing of folders."""

COLUMNS = ("label", "folder")
"""What the first line of a table names, the second if it likes."""


def parse_label_file(text: str, path: Path, templates: tuple[str, ...]) -> LabelSet:
    """Labels of a file's text; forms and errors as `lraee.labels.label_set.read_label_file`.

    >>> parse_label_file("cat\\nshorts\\tswim trunks / shorts", Path("x.txt"), ("{}",)).folders
    (('shorts', 'swim trunks / shorts'),)
    """
    suffix = path.suffix.lower()
    if suffix == ".json":
        pairs, own = _from_json(path, text)
        templates = templates if own is None else own
    else:
        pairs = _from_table(path, text) if suffix in (".csv", ".tsv") else _from_lines(path, text)
    pairs = [(normal_form(folder.strip()), normal_form(label.strip())) for folder, label in pairs]
    _check_folders(path, pairs)
    names = tuple(dict.fromkeys(label for _, label in pairs))
    folders = tuple((folder, label) for folder, label in pairs if folder != label)
    return LabelSet(names=names, templates=templates, folders=folders)


def _from_lines(path: Path, text: str) -> Pairs:
    pairs: Pairs = []
    for number, line in enumerate(text.splitlines(), start=1):
        cells = line.strip().split("\t")
        if len(cells) > 2 or (len(cells) == 2 and not (cells[0].strip() and cells[1].strip())):
            raise LabelsError(f"{path}: line {number} is {line[:60]!r}; wanted a label, or folder, tab, label.")
        if cells[0].strip():
            pairs.append((cells[0], cells[-1]))
    return pairs


def _from_table(path: Path, text: str) -> Pairs:
    first = text.lstrip("\r\n").split("\n", 1)[0].lower()
    separator = max(",;\t", key=first.count)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(map(str.strip, row))
        ]
    except csv.Error as error:
        raise LabelsError(f"{path} is no table: {error}.") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "label" not in header or not set(header) <= set(COLUMNS) or len(set(header)) != len(header):
        met = ", ".join(rows[0])[:60] if rows else "nothing"
        raise LabelsError(
            f"{path}: the first line is {met!r}; wanted the names of its columns, label and perhaps folder. A list "
            "without columns is a .txt file with one label a line."
        )
    pairs: Pairs = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise LabelsError(f"{path}: row {number} has {len(row)} cells, wanted {len(header)}; put a label with "
                              "commas into quotation marks.")  # fmt: skip
        cells = dict(zip(header, row, strict=True))
        pairs.append((cells.get("folder", "").strip() or cells["label"], cells["label"]))
    return pairs


def _from_json(path: Path, text: str) -> tuple[Pairs, tuple[str, ...] | None]:
    """Pairs, and templates if the file has some."""

    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [key for key, count in Counter(key for key, _ in items).items() if count > 1]:
            raise LabelsError(f"{path}: {twice[0]!r} occurs more than once; give each key once.")
        return dict(items)

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise LabelsError(f"{path} is no JSON: {error}.") from error
    fields: dict[str, Any] = content if isinstance(content, dict) else {"names": content}
    if "names" not in fields or not set(fields) <= {"names", "templates"}:
        raise LabelsError(f"{path}: met the keys {', '.join(sorted(fields))}; wanted names and perhaps templates.")
    for key, value in fields.items():
        items = list(value.values()) if isinstance(value, dict) and key == "names" else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            form = " or as an object of folders and labels" if key == "names" else ""
            raise LabelsError(f"{path}: wanted {key} as a list of texts{form}.")
    names = fields["names"]
    pairs = list(names.items()) if isinstance(names, dict) else [(name, name) for name in names]
    return pairs, tuple(fields["templates"]) if "templates" in fields else None


def _check_folders(path: Path, pairs: Pairs) -> None:
    """Refuse a folder, or a label that is its own folder, that is there twice, and a folder that is none."""
    repeated = sorted(folder for folder, count in Counter(folder for folder, _ in pairs).items() if count > 1)
    if repeated:
        kind = "labels" if all(label == folder for folder, label in pairs if folder in repeated) else "folders"
        raise LabelsError(f"{path}: {kind} occur more than once: {', '.join(repeated[:5])}. Each name is one class.")
    for folder, label in pairs:
        if folder != label and (not folder or "/" in folder):
            raise LabelsError(f"{path}: {folder!r} is no name of a folder; give the name of the last folder alone.")
