"""The search finds schedules that save what is asked for, can be built, and turn the embedding least."""

from types import SimpleNamespace
from typing import Any

import pytest

from lraee.errors import ExportError
from lraee_toolchain.parts.schedule_search import (
    Schedule,
    blocks_flops,
    find_schedule,
    is_possible,
    saving,
    scaled,
    shapes,
)


def tower(*, class_token: bool = True, tokens: int = 50) -> Any:
    """The shape of the reference."""
    return SimpleNamespace(tokens=tokens, depth=12, width=128, mlp_width=512, heads=4, has_class_token=class_token)


def turned(schedule: Schedule) -> float:
    """Blocks in the middle are harmless, others are not, and much in one block is worse than little in many."""
    return sum(merged**2 * (1 + abs(block - 6)) for block, merged in enumerate(schedule))


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("wanted", [0.05, 0.24, 0.4, 0.55])
def test_a_schedule_saves_what_is_asked_for_and_turns_least_of_its_neighbours(wanted: float, class_token: bool) -> None:
    """And less than the even schedule that saves as much."""
    shape = tower(class_token=class_token)
    found = find_schedule(shape, wanted, turned)
    assert wanted <= saving(shape, found) < wanted + 0.05
    assert is_possible(shape, found)
    even = scaled(shape, next(shapes(12)), wanted)
    assert even is not None
    assert turned(found) <= turned(even)


def test_savings_count_every_block_as_it_is_built() -> None:
    """Merging in the first block saves in all; the last computes the class token alone and merges nothing."""
    shape, plain = tower(), (0,) * 12
    early, late = ((6, *[0] * 11), (*[0] * 10, 6, 0))
    assert saving(shape, plain) == 0
    assert saving(shape, early) > 5 * saving(shape, late) > 0
    assert blocks_flops(shape, plain)[-1] < 0.5 * blocks_flops(shape, plain)[0]
    assert not is_possible(shape, (*[0] * 11, 1))
    assert is_possible(tower(class_token=False), (*[0] * 11, 1))
    assert is_possible(shape, (24, *[0] * 11))
    assert not is_possible(shape, (25, *[0] * 11))


def test_for_time_merging_may_be_left_to_few_blocks() -> None:
    """Where every block that merges gives back two hundredths, fewer of them merge than for FLOPs."""
    shape = tower()

    def saved(schedule: Schedule) -> float:
        return saving(shape, schedule) - 0.02 * sum(merged > 0 for merged in schedule)

    def evenly(schedule: Schedule) -> float:
        return float(sum(schedule))

    of_time, of_flops = find_schedule(shape, 0.2, evenly, saved), find_schedule(shape, 0.2, evenly)
    assert saved(of_time) >= 0.2
    assert sum(merged > 0 for merged in of_time) < sum(merged > 0 for merged in of_flops)
    assert is_possible(shape, of_time)


def test_more_than_merging_can_save_is_refused() -> None:
    """With what it can save."""
    with pytest.raises(ExportError, match=r"merging tokens saves at most 0\.\d\d of this tower's FLOPs, wanted 0\.99"):
        find_schedule(tower(), 0.99, turned)
