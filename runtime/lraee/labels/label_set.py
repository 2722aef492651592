"""Describes label sets: the names that an image is classified into, and the prompts that describe them."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from lraee.errors import LabelsError

DEFAULT_TEMPLATES = ("a photo of a {}.",)
"""Prompts of a label file that names none; the prompt that CLIP's authors recommend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSet:
    """Holds the labels that an image is classified into, and the prompts that describe them."""

    names: tuple[str, ...]
    """One name for each class, in the order of the class indices. Of equal names only the first can be predicted."""
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
                raise LabelsError(f"{kind} {other[0]!r} is not a text but a {type(other[0]).__name__}; wanted a str.")
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
    """Convert a name to Unicode's composed form (NFC), in which labels and folders are compared.

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
        read: gives what a tower reads of a text, such as its token ids.
        where: put before the message, such as a file's name.

    Raises:
        LabelsError: a tower reads the same in every prompt of two labels; both are named.
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
    from lraee.labels.tokenizer import clean  # imported late, because its imports take long

    if clean(one) == clean(other):
        return f", which reads both as {clean(one)!r}; keep one of them"
    return ": it reads the same tokens of both, as far as it reads; give names that differ sooner, or keep one of them"
