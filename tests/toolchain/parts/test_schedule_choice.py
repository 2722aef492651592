"""Schedules are those that were asked for, or found by what merging does to the embedding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lraee.errors import ExportError
from lraee_calibration_data import fashion_mnist_pool, load_pixels, open_dataset
from lraee_exporters.loading.open_clip_models import LoadedModel, load_model
from lraee_exporters.torch_tower.trunk import blocks_of
from lraee_toolchain.parts.block_times import BlockTimes
from lraee_toolchain.parts.schedule_choice import _Measure, asked_for, choose_schedules
from lraee_toolchain.parts.schedule_search import full_saving, saving


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    """The reference with its torch model."""
    return load_model("reference")


@pytest.fixture(scope="module")
def pixels(model: LoadedModel) -> Any:
    """48 images, uint8."""
    pool = open_dataset(fashion_mnist_pool())
    return load_pixels(pool.subset(range(0, len(pool), len(pool) // 48)[:48]), model.tower.preprocessing).pixels


def choose(model: LoadedModel, pixels: Any, *wishes: float | tuple[int, ...]) -> Any:
    """Without progress."""
    return choose_schedules(model, wishes, pixels)


def test_numbers_are_taken_as_they_are_and_named_by_what_they_save(model: LoadedModel, pixels: Any) -> None:
    """One number holds for all blocks but the last, which computes the class token alone; equal ones count once."""
    even, given = (2,) * 11 + (0,), (0, 0, 9, 0, 7, 1, 0, 2, 2, 0, 1, 0)
    found = choose(model, pixels, (2,), given, even)
    assert [(one.merged, one.kept) for one in found] == [(even, True), (given, True)]
    percent = [round(100 * full_saving(model.tower, one.merged)) for one in found]
    assert [one.name for one in found] == [f"merged-{share}" for share in percent]


def test_schedules_that_save_as_much_get_names_of_their_own(model: LoadedModel, pixels: Any) -> None:
    """By a letter."""
    first, second = (3,) * 11 + (0,), (3,) * 9 + (2, 4, 0)
    names = [one.name for one in choose(model, pixels, first, second)]
    assert names[1] == f"{names[0]}b"


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ((2, 2), "--merge-tokens is 2,2, wanted one number, or 12: one for each block"),
        ((30,), "--merge-tokens is 30, which merges more than there is"),
        ((0,) * 11 + (1,), "and the last, which computes the class token alone, none"),
    ],
)
def test_schedules_that_cannot_be_are_refused(model: LoadedModel, wish: tuple[int, ...], message: str) -> None:
    """With what can."""
    with pytest.raises(ExportError, match=message):
        asked_for(model.tower, wish)


def test_a_share_is_reached_by_the_schedule_that_turns_the_embedding_least(model: LoadedModel, pixels: Any) -> None:
    """Not more than an even one that saves as much; the torch model is as it was."""
    met = []
    (found,) = choose_schedules(model, (0.3,), pixels, met.append)
    assert saving(model.tower, found.merged) >= 0.3
    assert not found.kept
    assert len(met) > 10
    assert not any("forward" in vars(block) for block in blocks_of(model.torch_model.visual))
    even = (3,) * 11 + (0,)
    assert saving(model.tower, even) >= 0.3

    def turned(schedule: tuple[int, ...]) -> float:
        return _Measure(model, pixels, lambda done: None)(schedule)

    assert turned(found.merged) <= turned(even)
    assert turned((0,) * 12) == pytest.approx(0, abs=1e-6)


def test_random_weights_merge_evenly(pixels: Any) -> None:
    """Nothing can be measured on them."""
    random = load_model("ViT-B-32", pretrained="random:0")
    (found,) = choose(random, np.zeros((1, 224, 224, 3), np.uint8), 0.3)
    assert len({*found.merged[:-1]}) <= 2
    assert 0.3 <= saving(random.tower, found.merged) < 0.34
    assert found.kept


def test_times_are_near_those_of_the_blocks_and_a_share_of_them_may_be_asked_for(model: LoadedModel) -> None:
    """Fewer tokens take less; what is found saves that share of the estimated time."""
    times = BlockTimes(model.tower)
    plain, bare = times.milliseconds((0,) * 12), times.milliseconds((16, *[0] * 11))
    assert 0 < bare < plain
    random = load_model("ViT-B-32", pretrained="random:0")
    slow = BlockTimes(random.tower)
    (found,) = choose_schedules(random, (0.3,), np.zeros((1, 224, 224, 3), np.uint8), times=slow)
    assert slow.milliseconds(found.merged) <= 0.7 * slow.milliseconds((0,) * 12)
