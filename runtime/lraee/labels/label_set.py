"""Label sets: the names that an image is classified into and the prompts that describe them."""

from __future__ import annotations

import codecs
import os
import unicodedata
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path

from lraee.errors import LabelsError

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""Prompts of a label file that names none; the prompt that CLIP's authors recommend."""

FILE_SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".md", ".yaml", ".yml", ".xls", ".xlsx", ".ods", ".names")
"""A text that ends like this is taken for a file's name, also where there is no such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """The labels an image is classified into, and the prompts that describe them."""

    names: tuple[str, ...]
    """One name a class, in the order of the class indices. Of equal names only the first can be predicted."""
    templates: tuple[str, ...] = DEFAULT_TEMPLATES
    """Prompts in which `{}` stands for the name."""
    folders: tuple[tuple[str, str], ...] = ()
    """Folder and label of each folder of images that is not called like its label; several may share one label."""

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


def normal_form(name: str) -> str:
    """A name in Unicode's composed form (NFC), in which labels and folders are compared.

    macOS writes an accented letter as two characters, most other systems as one.

    >>> normal_form("cafe\\u0301") == "caf\\xe9"
    True
    """
    return unicodedata.normalize("NFC", name)


def check_told_apart(labels: LabelSet, read: Callable[[str], Hashable], *, where: str = "") -> None:
    """Refuse two labels that a text tower cannot tell apart: one of them could never be the answer.

    Two labels with the same name pass: ImageNet's label set has such on purpose, and elsewhere they are refused before.

    Args:
        labels: names and templates.
        read: what a tower reads of a text, such as its token ids.
        where: put before the message, such as a file's name.

    Raises:
        LabelsError: every prompt of two labels is read alike; both are named.
    """
    seen: dict[Hashable, list[str]] = {}
    first, *others = labels.templates
    for name in dict.fromkeys(labels.names):
        alike = seen.setdefault(read(first.replace("{}", name)), [])
        for other in alike:
            if all(read(text.replace("{}", name)) == read(text.replace("{}", other)) for text in others):
                raise LabelsError(f"{where}labels {other!r} and {name!r} are one to the text tower{_why(other, name)}")
        alike.append(name)


def _why(one: str, other: str) -> str:
    from lraee.labels.tokenizer import clean  # whose imports take longest

    if clean(one) == clean(other):
        return f", which reads both as {clean(one)!r}; keep one of them"
    return ": it reads the same tokens of both, as far as it reads; give names that differ sooner, or keep one of them"


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
        LabelsError: The file is missing, malformed or empty, repeats a name, or two labels are one to a text tower.
    """
    from lraee.labels.label_file import parse_label_file  # which needs csv and json

    labels = parse_label_file(_read_text(path), path, templates)
    _check_cleaned(labels, f"{path}: ")
    return labels


def parse_labels(text: str, templates: tuple[str, ...] = DEFAULT_TEMPLATES) -> LabelSet:
    """Labels as they are typed: names with commas between them, or a file for `read_label_file`.

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


def _check_cleaned(labels: LabelSet, where: str = "") -> None:
    from lraee.labels.tokenizer import clean

    check_told_apart(LabelSet(names=labels.names, templates=("{}",)), clean, where=where)


def _read_text(path: Path) -> str:
    """Content of a label file."""
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
            f"{path}: the label file cannot be read, byte {error.start} is no {error.encoding.upper()}; {wanted}; save "
            "it as UTF-8."
        ) from error
    if "\0" in text:
        raise LabelsError(f"{path}: the label file cannot be read, it holds zero bytes; {wanted}; save it as UTF-8.")
    return text
