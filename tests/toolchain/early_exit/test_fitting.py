"""What an export decides about leaving early: costs, candidates, what is right, and which exits are kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.exits import candidates, head_inputs
from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.outcomes import Point
from lraee_toolchain.early_exit.routing import Routing, without_unused
from lraee_toolchain.early_exit.task import Costs, Material


def test_the_last_block_has_a_price_of_its_own_and_an_exit_pays_whole_blocks() -> None:
    """It computes the class token alone; an exit after it would need all tokens."""
    costs = Costs(stem=1, block=20, last=5, exits={}, tail=300, depth=4)
    assert costs.full == 1 + 3 * 20 + 5 + 300
    assert [costs.up_to(block) for block in (1, 4)] == [21, 81]


@pytest.mark.parametrize(
    ("exits", "depth", "is_random", "blocks"),
    [
        ("auto", 12, False, tuple(range(2, 12))),
        ("auto", 2, False, (1,)),
        ("all", 4, False, (1, 2, 3)),
        ("none", 12, False, ()),
        ("none", 12, True, ()),
        ((10, 8, 10), 12, False, (8, 10)),
        ((9,), 12, True, (9,)),
        ("auto", 12, True, (8, 10, 11)),
        ("auto", 1, True, (1,)),
    ],
)
def test_blocks_that_may_get_an_exit(exits: str | tuple[int, ...], depth: int, is_random: bool, blocks: Any) -> None:
    """Those asked for in rising order, or from a sixth of the depth to the last but one, or the paper's."""
    assert candidates(exits, depth, is_random=is_random) == blocks


def test_heads_read_what_they_are_told_or_all_that_is_there() -> None:
    """Without a class token neither it nor it beside the mean; without tokens none that learn from them."""
    auto = ExportConfig(model="reference", out=Path("unused.lraee"))
    told = ExportConfig(model="reference", out=Path("unused.lraee"), reads="cls")
    everything = {"patch_mean", "cls", "both", "attention", "local"}
    assert set(head_inputs(auto, class_token=True, tokens=True)) == everything
    assert set(head_inputs(auto, class_token=True, tokens=False)) == {"patch_mean", "cls", "both"}
    assert set(head_inputs(auto, class_token=False, tokens=True)) == {"patch_mean", "attention", "local"}
    assert head_inputs(auto, class_token=False, tokens=False) == ("patch_mean",)
    assert head_inputs(told, class_token=True, tokens=True) == ("cls",)


def test_without_classes_an_answer_is_good_that_agrees_with_the_float_tower() -> None:
    """With classes it is one that is right."""
    empty = np.zeros((2, 1), np.float32)
    features = Features(empty[:, None], None, empty, empty, np.eye(2, dtype=np.float32))
    teacher = Teacher(empty, np.array([[0.4, 0.6], [0.3, 0.7]], np.float32))
    answers = np.array([[0.9, 0.1], [0.2, 0.8]], np.float32)
    with_classes = Material(features=features, teacher=teacher, classes=np.array([0, 0]))
    assert with_classes.good(answers).tolist() == [True, False]
    assert Material(features=features, teacher=teacher, classes=None).good(answers).tolist() == [False, True]


def point(*thresholds: float, schedule: str | None = None) -> Point:
    """A point of which only the thresholds and the schedule matter."""
    return Point(thresholds=thresholds, accuracy=0.8, saved=0.2, difference=0.0, standard_error=0.0, schedule=schedule)


def test_exits_that_no_point_opens_are_dropped_with_what_opens_them() -> None:
    """One point is enough to keep an exit; points of the front that need one that is gone go too."""
    exits: Any = ("first", "second", "third")
    routing = Routing(
        exits=exits,
        front=(point(math.inf, math.inf, 0.5), point(math.inf, 0.4, 0.5)),
        points={"balanced": point(0.3, math.inf, math.inf), "fast": point(0.2, math.inf, 0.1)},
    )
    kept = without_unused(routing, exits=True)
    assert kept.exits == ("first", "third")
    assert {name: one.thresholds for name, one in kept.points.items()} == {
        "balanced": (0.3, math.inf), "fast": (0.2, 0.1)
    }  # fmt: skip
    assert [one.thresholds for one in kept.front] == [(math.inf, 0.5)]
    assert without_unused(kept, exits=True) is kept
    assert without_unused(routing, exits=False) is routing


def test_schedules_that_no_point_takes_are_dropped_and_exits_by_schedule() -> None:
    """Thresholds belong to the exits of their point's schedule, which need not be those of another."""
    exits: Any = ("first", "second")
    merged: Any = {"merged-20": ("third", "fourth"), "merged-40": ("fifth",)}
    routing = Routing(
        exits=exits,
        front=(point(0.5, math.inf), point(0.4, schedule="merged-40"), point(0.4, 0.4, schedule="merged-20")),
        points={"balanced": point(math.inf, 0.2, schedule="merged-20"), "fast": point(0.1, math.inf)},
        merged=merged,
    )
    whole = without_unused(routing, exits=False)
    assert (whole.exits, dict(whole.merged)) == (exits, {"merged-20": ("third", "fourth")})
    assert [one.schedule for one in whole.front] == [None, "merged-20"]
    assert dict(without_unused(routing, exits=False, kept=["merged-40"]).merged) == merged
    kept = without_unused(routing, exits=True)
    assert (kept.exits, dict(kept.merged)) == (("first",), {"merged-20": ("fourth",)})
    assert kept.exits_under("merged-20") == ("fourth",)
    assert {name: one.thresholds for name, one in kept.points.items()} == {"balanced": (0.2,), "fast": (0.1,)}
    assert [(one.schedule, one.thresholds) for one in kept.front] == [(None, (0.5,))]
