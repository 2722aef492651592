"""Label sets: the names that an image is classified into and the prompts that describe them."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lraee.errors import LabelsError

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""Prompts of a label file that names none; the prompt that CLIP's authors recommend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """The labels an image is classified into, and the prompts that describe them."""

    names: tuple[str, ...]
    """One name a class, in the order of the class indices. Of equal names only the first can be predicted."""
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    """Prompts in which `{}` stands for the name."""

    def __post_init__(self) -> None:
        """Refuse empty or blank names and templates without a place for the name."""
        if not self.names:
            raise LabelsError("There are no labels; wanted at least one name.")
        for kind, texts in (("Label", self.names), ("Template", self.templates)):
            if other := [text for text in texts if not isinstance(text, str)]:
                raise LabelsError(f"{kind} {other[0]!r} is no text but a {type(other[0]).__name__}; wanted a str.")
        if any(not name.strip() for name in self.names):
            blank = [name.strip() for name in self.names].index("") + 1
            raise LabelsError(f"Label {blank} of {len(self.names)} is blank; remove it or name it.")
        unusable = [template for template in self.templates if template.count("{}") != 1]
        if unusable or not self.templates:
            met = f"'{unusable[0]}'" if unusable else "no template"
            raise LabelsError(f"Templates: met {met}, wanted at least one text with exactly one {{}} for the name.")

    def prompts(self) -> tuple[str, ...]:
        """Return every prompt, the templates of the first name first.

        >>> LabelSet(names=("cat", "dog"), templates=("a {}.", "{}")).prompts()
        ('a cat.', 'cat', 'a dog.', 'dog')
        """
        return tuple(template.replace("{}", name) for name in self.names for template in self.templates)


def read_label_file(path: Path, templates: tuple[str, ...] = DEFAULT_TEMPLATES) -> LabelSet:
    """Read labels from a file.

    Args:
        path: `.json`: a list of names, or `{"names": [...], "templates": [...]}` (templates may be left away); any
            other suffix: UTF-8 text with one name a line, where blank lines are skipped.
        templates: Prompts where the file names none.

    Raises:
        LabelsError: The file is missing, malformed, empty, or repeats a name.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"{path}: the label file cannot be read ({error}); wanted UTF-8 text or JSON.") from error
    fields = _json_fields(path, text) if path.suffix == ".json" else {"names": _lines(text)}
    labels = LabelSet(**{"templates": templates} | {key: tuple(value) for key, value in fields.items()})
    repeated = sorted(name for name, count in Counter(labels.names).items() if count > 1)
    if repeated:
        raise LabelsError(f"{path}: labels occur more than once: {', '.join(repeated[:5])}. Each name is one class.")
    return labels


def parse_labels(text: str, templates: tuple[str, ...] = DEFAULT_TEMPLATES) -> LabelSet:
    """Labels as they are typed: names with commas between them, or a file for `read_label_file`.

    >>> parse_labels("a cat, a dog").names
    ('a cat', 'a dog')

    Raises:
        LabelsError: as `read_label_file`.
    """
    if os.path.isfile(text) or text.endswith((".txt", ".json")):
        return read_label_file(Path(text), templates)
    return LabelSet(names=tuple(name.strip() for name in text.split(",")), templates=templates)


def _lines(text: str) -> list[str]:
    """Names of a text file, one a line."""
    return [line.strip() for line in text.splitlines() if line.strip()]


def _json_fields(path: Path, text: str) -> dict[str, list[str]]:
    """Names, and templates if there are any, of a JSON file."""
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise LabelsError(f"{path} is no JSON: {error}.") from error
    fields: dict[str, Any] = content if isinstance(content, dict) else {"names": content}
    if "names" not in fields or not set(fields) <= {"names", "templates"}:
        raise LabelsError(f"{path}: met the keys {', '.join(sorted(fields))}; wanted names and perhaps templates.")
    for key, value in fields.items():
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise LabelsError(f"{path}: wanted {key} as a list of texts.")
    return fields
