"""Says in one sentence what of a data set was skipped or could not be read; for every command alike."""

from collections.abc import Mapping, Sequence

NAMED = 3
"""Files, folders or classes that a sentence names."""

KINDS = 8
"""Ends of file names that a sentence counts one by one."""


def passed_over_words(counts: Mapping[str, int]) -> str:
    """Count the files that are not images, by the end of their names, the most first.

    >>> passed_over_words({".txt": 12, "hidden": 2})
    '12 .txt, 2 hidden'
    """
    numbers = list(counts.items())
    rest = sum(count for _, count in numbers[KINDS:])
    return ", ".join([f"{count} {kind}" for kind, count in numbers[:KINDS]] + ([f"{rest} others"] if rest else []))


def skipped_words(reasons: Sequence[str]) -> str:
    """Say which images could not be read.

    Args:
        reasons: what is wrong with each, its name included; at least one.

    >>> skipped_words(["cat/1.jpg is damaged"])
    '1 image cannot be read and is left out: cat/1.jpg is damaged'
    """
    what = "1 image cannot be read and is" if len(reasons) == 1 else f"{len(reasons)} images cannot be read and are"
    return f"{what} left out: {some_words(reasons, separator='; ')}"


def some_words(names: Sequence[str], *, separator: str = ", ") -> str:
    """List the first names, and how many more there are.

    >>> some_words(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return separator.join(names[:NAMED]) + rest


def printable(text: str) -> str:
    """Make a text printable although names of files in it are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
