"""Names the parts that run where tokens are merged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledParts:
    """Names the parts that run under a schedule."""

    merged: tuple[int, ...]
    """Pairs of tokens that become one in each block."""
    blocks: tuple[str, ...]
    tail: str
