"""The programs to start from, shipped photos to give them, and what is told of a run; for `programs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from markdown_files import ROOT

from lraee_calibration_data import photo_table

PROGRAMS = ROOT / "docs" / "programs"
PHOTOS = photo_table().parent
COFFEE, PENGUIN, CAT, LIGHTHOUSE, OTHER_LIGHTHOUSE = (
    PHOTOS / f"{name}.jpg"
    for name in ("skimage-coffee", "cq100-king-penguin", "skimage-chelsea", "kodak-19", "kodak-21")
)
"""What photo-clip calls them: espresso, king penguin, unsure (tabby cat, 0.46), and lighthouse twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a program did."""

    status: int
    out: list[str]
    err: str


Run = Callable[..., Done]
