"""Whether the report says of early exit that it beats a tower that is cut, or that it does not."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

import lraee
from lraee.bundle.manifest import Manifest
from lraee_toolchain.report.static_cuts import cuts_text


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    """Of the shipped bundle; its default operating point is `balanced`."""
    return lraee.load("reference", threads=1).manifest


def evaluation(*cuts: tuple[int, float, float], saved: float = 0.5) -> dict[str, Any]:
    """Early exit with 90 % and some FLOPs saved, beside cuts given as block, accuracy and FLOPs saved."""

    def row(name: str, accuracy: float, saved: float) -> dict[str, Any]:
        return {"name": name, "accuracy": {"mean": accuracy}, "flops_saved": saved}

    return {"rows": [row("adaptive=balanced", 0.9, saved), *(row(f"exit={b}", a, s) for b, a, s in cuts)]}


def test_it_wins_where_equal_cuts_save_less(manifest: Manifest) -> None:
    """The cheapest of those that are as accurate is named."""
    text = cuts_text(manifest, evaluation((4, 0.8, 0.64), (9, 0.9, 0.2), (11, 0.91, 0.02)))
    assert text is not None
    assert "beats cutting" in text
    assert "behind block 9 and saves 20.0 %" in text


def test_it_loses_where_an_equal_cut_saves_as_much(manifest: Manifest) -> None:
    """That is said in capitals."""
    text = cuts_text(manifest, evaluation((4, 0.8, 0.64), (6, 0.9, 0.5)))
    assert text is not None
    assert "does NOT beat" in text


def test_it_wins_where_no_cut_is_as_accurate(manifest: Manifest) -> None:
    """The best cut is told with what it costs."""
    text = cuts_text(manifest, evaluation((4, 0.8, 0.64), (9, 0.89, 0.2)))
    assert text is not None
    assert "no cut is as accurate" in text
    assert "behind block 9, reaches 89.00 %" in text


def test_there_is_nothing_to_say_without_a_comparison(manifest: Manifest) -> None:
    """No evaluation, no exits, no default point, or one that saves nothing."""
    assert cuts_text(manifest, None) is None
    assert cuts_text(manifest, evaluation()) is None
    assert cuts_text(manifest, evaluation((4, 0.8, 0.64), saved=0.0)) is None
    assert cuts_text(dataclasses.replace(manifest, default_point=None), evaluation((4, 0.8, 0.6))) is None
