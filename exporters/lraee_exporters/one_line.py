"""Formats text from files and libraries for messages: one line, printable, not long.

Names of tensors and messages of torch come from elsewhere: they may break lines, colour a terminal or fill a screen.
"""

import re

ESCAPE_CODE = re.compile(r"\x1b(\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|.)?")
"""What a terminal obeys instead of printing it: CSI and OSC sequences, and an escape with one character."""


def one_line(text: object, limit: int = 200) -> str:
    r"""Give `text` without escape codes, control characters and line breaks, cut to `limit` characters.

    >>> one_line("red \x1b[31mtext\x1b[0m\non two lines")
    'red text on two lines'
    >>> one_line("abcdef", 4)
    'abc…'
    """
    plain = ESCAPE_CODE.sub("", str(text))
    plain = " ".join("".join(character if character.isprintable() else " " for character in plain).split())
    return plain if len(plain) <= limit else f"{plain[: limit - 1]}…"


def some(names: list[str], count: int = 3, limit: int = 60) -> str:
    """Give the first names and how many follow.

    >>> some(["a", "b", "c", "d"], count=2)
    'a, b and 2 more'
    """
    shown = ", ".join(one_line(name, limit) for name in names[:count])
    return shown + (f" and {len(names) - count} more" if len(names) > count else "")
