"""Reads labels as people give them: typed, or in a file of lines, a table or JSON that may map folders to labels.

It is separate from `lraee.labels.label_set`, so that loading a bundle imports no reader of tables.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from lraee.errors import LabelsError
from lraee.labels.label_set import DEFAULT_TEMPLATES, LabelSet, check_told_apart, normal_form

Pairs = list[tuple[str, str]]
"""Folder and label of each line; the same name twice where the file says nothing of folders."""

FILE_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".yaml", ".yml", ".xls", ".xlsx", ".ods", ".names")
"""A text that ends like this is taken for a file's name, also where there is no such file."""

COLUMNS = ("label", "folder")
"""Columns that the first line of a table may name; the second is optional."""


def read_label_file(path: Path, templates: tuple[str, ...] = DEFAULT_TEMPLATES) -> LabelSet:
    """Read labels from a file: UTF-8, or UTF-16 with its byte order mark.

    A folder of images is expected to be called like its label. Where it is not, because a label holds a character that
    no folder's name may have, a file may map folders to labels; several folders may have one label.

    Args:
        path: by its suffix:

            - ``.json``: a list of names, or ``{"names": ..., "templates": [...]}``, where names is a list or an object
              ``{folder: label}`` and templates may be missing;
            - ``.csv`` and ``.tsv``: a first line with the columns ``label`` and perhaps ``folder``, then one label a
              line; with commas, semicolons or tabs between them;
            - any other: one label a line, or folder, tab, label. Blank lines are skipped.
        templates: Prompts where the file names none.

    Raises:
        LabelsError: The file is missing, malformed or empty, repeats a name, or two labels are the same to a text
            tower.
    """
    labels = parse_label_file(_read_text(path), path, templates)
    _check_cleaned(labels, f"{path}: ")
    return labels


def parse_labels(text: str, templates: tuple[str, ...] = DEFAULT_TEMPLATES) -> LabelSet:
    """Parse labels as they are typed: names with commas between them, or a file for `read_label_file`.

    >>> parse_labels("a cat, a dog").names
    ('a cat', 'a dog')

    Raises:
        LabelsError: as `read_label_file`; also when a file is named that is not there.
    """
    names = [normal_form(name.strip()) for name in text.split(",")]
    if os.path.isfile(text) or text.lower().endswith(FILE_SUFFIXES):
        return read_label_file(Path(text), templates)
    if len(names) == 1 and (os.sep in text or "\\" in text or os.path.isdir(text)):
        return read_label_file(Path(text), templates)  # which says that there is no such file
    if files := [name for name in names if name.lower().endswith(FILE_SUFFIXES)]:
        raise LabelsError(f"labels: {files[0]!r} looks like a file; give one file, or names with commas between them")
    if len(names) == 1:
        raise LabelsError(
            f"labels: met the one label {text!r}, and there is no file of that name; wanted at least two labels with "
            "commas between them, or a label file"
        )
    labels = LabelSet(names=tuple(names), templates=templates)
    _check_cleaned(labels)
    return labels


def parse_label_file(text: str, path: Path, templates: tuple[str, ...]) -> LabelSet:
    """Parse the text of a label file; forms and errors as `read_label_file`.

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
        raise LabelsError(f"{path} is not a table: {error}.") from error
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
    """Parse pairs, and templates if the file has some."""

    def unique(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if twice := [key for key, count in Counter(key for key, _ in items).items() if count > 1]:
            raise LabelsError(f"{path}: {twice[0]!r} occurs more than once; give each key once.")
        return dict(items)

    try:
        content = json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise LabelsError(f"{path} is not JSON: {error}.") from error
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
    """Refuse repeated folders, or repeated labels without folders, and what cannot be the name of a folder."""
    repeated = sorted(folder for folder, count in Counter(folder for folder, _ in pairs).items() if count > 1)
    if repeated:
        kind = "labels" if all(label == folder for folder, label in pairs if folder in repeated) else "folders"
        raise LabelsError(f"{path}: {kind} occur more than once: {', '.join(repeated[:5])}. Each name is one class.")
    for folder, label in pairs:
        if folder != label and (not folder or "/" in folder):
            raise LabelsError(f"{path}: {folder!r} is not the name of a folder; give that of the last folder alone.")


def _check_cleaned(labels: LabelSet, where: str = "") -> None:
    from lraee.labels.tokenizer import clean

    check_told_apart(LabelSet(names=labels.names, templates=("{}",)), clean, where=where)


def _read_text(path: Path) -> str:
    """Read and decode the content of a label file."""
    wanted = "wanted UTF-8 text, CSV or JSON"
    try:
        content = path.read_bytes()
    except OSError as error:
        met = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise LabelsError(f"{path}: the label file cannot be read, {met}; {wanted}.") from error
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelsError(
            f"{path}: the label file cannot be read, byte {error.start} is not {error.encoding.upper()}; {wanted}; "
            "save it as UTF-8."
        ) from error
    if "\0" in text:
        raise LabelsError(f"{path}: the label file cannot be read, it holds zero bytes; {wanted}; save it as UTF-8.")
    return text
