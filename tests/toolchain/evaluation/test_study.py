"""Which heads the tables fit: those that the export chose, as long as their tokens fit on the disk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lraee.bundle.strict_json import write_json
from lraee_exporters.graphs.exit import HeadInput
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.routing import ROUTING, CandidateHead, SavedRouting
from lraee_toolchain.evaluation.study import Study

A_TOWER = 300_000_000
"""Bytes of all tokens of one tower."""


def study(folder: Path, heads: dict[int, HeadInput], **options: Any) -> tuple[Any, list[str]]:
    """A study of exits with these heads, under one merging schedule, and what it tells the user."""
    said: list[str] = []
    found = Study.__new__(Study)
    write_json(
        SavedRouting(candidates=tuple(CandidateHead(block=block, reads=reads) for block, reads in heads.items())),
        folder / ROUTING,
    )
    found._exits, found._precision = folder, "strong INT8"
    stages: Any = SimpleNamespace(
        config=ExportConfig(model="reference", out=folder / "x.lraee", **options),
        schedules=("merged-30",),
        table_token_bytes=lambda towers: towers * A_TOWER,
        progress=SimpleNamespace(notice=said.append),
    )
    found._stages = stages
    return found, said


@pytest.mark.parametrize(
    ("tables", "disk_limit", "fits"), [("all", 1.5, True), ("all", 1.4, False), ("exported", 0.6, True)]
)
def test_heads_of_all_tokens_are_fitted_where_the_tokens_fit(
    tmp_path: Path, tables: Any, disk_limit: float, fits: bool
) -> None:
    """Four precisions and a schedule, or one precision and the schedule; else pooled heads, and a notice says so."""
    heads: dict[int, HeadInput] = {2: "attention", 7: "both"}
    found, said = study(tmp_path, heads, tables=tables, disk_limit=disk_limit)
    assert found._kinds == (heads if fits else {})
    assert found._read_tokens is fits
    assert len(said) == (not fits)
    assert all("take 1.5 GB, and --disk-limit is 1.4; give 2 or more" in text for text in said)


def test_pooled_heads_need_no_tokens_and_named_heads_are_no_choice(tmp_path: Path) -> None:
    """However little room there is."""
    found, said = study(tmp_path, {2: "both"}, disk_limit=0.0)
    assert (found._kinds, found._read_tokens, said) == ({2: "both"}, False, [])
    asked, said = study(tmp_path, {2: "attention"}, reads="attention", disk_limit=0.0)
    assert (asked._kinds, asked._read_tokens, said) == ({}, True, [])
