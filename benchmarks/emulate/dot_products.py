"""Which kernels an ARM core took: how many dot product instructions qemu translated while an image ran.

That answers agree shows little if every core took the same kernel. qemu's log of translated code (`-d in_asm`) shows,
but its disassembler does not know these instructions, so they are known by their bits: UDOT and SDOT, of vectors and by
element, from the Arm Architecture Reference Manual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

LOGGING = "-d in_asm -D"
"""Options of qemu; the path of the log follows."""

_LINE = re.compile(r"0x([0-9a-f]+):\s+([0-9a-f]{8})\b")
_FORMS = ((0x9F20FC00, 0x0E009400), (0x9F00F400, 0x0F00E000))
"""Mask and value: vectors, and by element. The sign bit (29), the width of the register (30) and the rest are free."""
_SIZE = 0x00C00000
_BYTES_TO_WORDS = 0x00800000


def is_dot_product(instruction: int) -> bool:
    """Whether 32 bits are a UDOT or SDOT from bytes to words.

    >>> is_dot_product(0x6F82E020), is_dot_product(0x4E829420), is_dot_product(0x4E228420)
    (True, True, False)
    """
    known = any(instruction & mask == value & mask for mask, value in _FORMS)
    return known and instruction & _SIZE == _BYTES_TO_WORDS


def count_dot_products(log: Iterable[str]) -> int:
    """How many different addresses of a log hold one; code that is translated twice counts once."""
    found = (match for line in log if (match := _LINE.match(line)))
    return len({match[1] for match in found if is_dot_product(int(match[2], 16))})
