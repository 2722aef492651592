"""How the evidence on photos calls its rows, and writes its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WAYS = {
    "full": "{}, full depth",
    "ssa_last": "{}, SSA head at the last block, full depth",
    "routed": "LRA-EE on {}",
    "routed_label_free": "LRA-EE on {}, label-free heads",
    "routed_ssa": "LRA-EE on {}, SSA heads only",
}
"""Rows of T1."""


def percent(share: float, digits: int = 1) -> str:
    """Format a share of 1 as percent."""
    return f"{100 * share:z.{digits}f} %"


def saving(row: Mapping[str, Any]) -> str:
    """Format FLOPs saved with their standard deviation over the seeds."""
    spread = row.get("flops_saved_std") or 0.0
    return percent(row["flops_saved"]) + (f" ± {100 * spread:.1f}" if spread else "")


def points(found: Mapping[str, float] | None) -> str:
    """Format a difference in points with its interval; nothing where there is none.

    >>> points({"mean": 0.01, "low": -0.01, "high": 0.03})
    '+1.00 (-1.00 to +3.00)'
    """
    if found is None:
        return ""
    mean, low, high = (100 * found[key] for key in ("mean", "low", "high"))
    return f"{mean:+z.2f} ({low:+z.2f} to {high:+z.2f})"
