"""Reads the small text files in which Linux tells of the machine."""

from __future__ import annotations

from pathlib import Path


def text_of(path: str | Path) -> str:
    """Read a file without blanks at its ends; empty where there is none or it may not be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
