"""Decides which tokens may lie on disk: those that fit the limit, in the order in which they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable

GIGABYTE = 10**9

SPARE = 2 * GIGABYTE
"""Bytes of the disk that tokens leave free for everything after them."""


class TokenRoom:
    """Grants room on disk up to a limit; what was granted or refused once stays so."""

    def __init__(self, limit_bytes: int, free_bytes: Callable[[], int], notify: Callable[[str], None]) -> None:
        """Nothing is granted yet.

        Args:
            limit_bytes: of all shards together.
            free_bytes: asked for the room on the disk.
            notify: told what the tokens take, or why they are not kept.
        """
        self._limit, self._left = limit_bytes, limit_bytes
        self._free_bytes, self._notify = free_bytes, notify
        self._granted: dict[str, bool] = {}

    def grant(self, key: str, size_bytes: int, *, what: str, found: bool) -> bool:
        """Tell whether tokens may be kept on disk.

        Args:
            key: of these tokens; the same key gets the same answer.
            size_bytes: what they take.
            what: names them in the notice.
            found: whether they are on disk already.
        """
        if key in self._granted:
            return self._granted[key]
        free = self._free_bytes() - SPARE
        granted = size_bytes <= self._left and (found or size_bytes <= free)
        self._granted[key] = granted
        takes = f"all tokens of {what} take {_gb(size_bytes)}"
        if granted:
            self._left -= size_bytes
            if size_bytes >= GIGABYTE and not found:
                self._notify(f"{takes} in the work folder")
            return True
        enough = math.ceil(10 * (self._limit - self._left + size_bytes) / GIGABYTE) / 10
        reason = (
            f"--disk-limit {self._limit / GIGABYTE:g} leaves {_gb(self._left)}: give {enough:g} or more"
            if size_bytes > self._left
            else f"the disk has {_gb(max(free, 0))} to spare: make room or give another --work"
        )
        self._notify(f"{takes}, {reason}; meanwhile the tower runs again in every epoch of the heads, which is slower")
        return False


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / GIGABYTE:.1f} GB" if size_bytes >= GIGABYTE // 10 else f"{size_bytes / 10**6:.0f} MB"
