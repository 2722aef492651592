"""A stream is classified in full batches, with bounded memory, and every image gets its own answer."""

from __future__ import annotations

import weakref
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import lraee
from lraee.engine.stream import in_order, run_stream
from lraee.errors import ImageError, PolicyError
from lraee.policies import Patience, Verdict

PROBABILITY_TOLERANCE = 1e-5
"""Integer products do not depend on the batch, float ones may in the last bits: a batch of one takes another kernel."""


class CountingTower:
    """Tokens are (batch, 1, 2): which image it is (its first two pixels as a number), and how many blocks it passed."""

    def __init__(self, depth: int, exits: frozenset[int]) -> None:
        self.depth = depth
        self.exits = exits

    def stem(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        number = pixels[:, 0, 0, 0].astype(np.float32) * 256 + pixels[:, 0, 0, 1]
        return np.stack([number, np.zeros_like(number)], axis=1)[:, None, :]

    def block(self, number: int, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        assert (tokens[:, 0, 1] == number - 1).all()  # every block before this one has run, once
        return tokens + np.array([0, 1], np.float32)

    def has_exit(self, number: int) -> bool:
        return number in self.exits

    def exit(self, number: int, tokens: NDArray[np.float32], rows: NDArray[np.intp]) -> Verdict:
        features = np.zeros((len(tokens), 3), np.float32)
        return Verdict(*self.tail(tokens), features, np.full(len(tokens), number, np.float32), rows)

    def tail(self, tokens: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return tokens[:, 0], np.ones((len(tokens), 2), np.float32)


@dataclass(frozen=True)
class Planned:
    """Image number n leaves after the block ``plan[n]``, and visits all exits in `visited` before."""

    plan: tuple[int | None, ...]
    visited: frozenset[int]

    def visits(self, block: int) -> bool:
        return block in self.visited

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        return np.array([self.plan[int(number)] == block for number in verdict.embedding[:, 0]])


def pictures(count: int, read: list[int] | None = None) -> Iterator[NDArray[np.uint8]]:
    """Images that carry their number; notes which have been read."""
    for number in range(count):
        if read is not None:
            read.append(number)
        yield np.full((1, 1, 3), [number // 256, number % 256, 0], np.uint8)


@st.composite
def streams(draw: st.DrawFn) -> tuple[CountingTower, Planned, int, int]:
    """A tower, where each image leaves, a batch size and a lag."""
    depth = draw(st.integers(1, 5))
    exits = frozenset(draw(st.sets(st.integers(1, depth))))
    visited = frozenset(draw(st.sets(st.sampled_from(sorted(exits))))) if exits else frozenset()
    plan = draw(st.lists(st.sampled_from([None, *sorted(visited)]), max_size=60))
    batch_size = draw(st.integers(1, 6))
    return CountingTower(depth, exits), Planned(tuple(plan), visited), batch_size, batch_size + draw(st.integers(0, 30))


@settings(deadline=None, max_examples=60)
@given(streams())
def test_every_image_gets_its_own_answer_once(stream):
    """Whatever the pattern of leaving, the batch size and the lag."""
    tower, route, batch_size, max_lag = stream
    answers = dict(run_stream(tower, pictures(len(route.plan)), lambda: route, batch_size=batch_size, max_lag=max_lag))
    assert sorted(answers) == list(range(len(route.plan)))
    for number, leave in enumerate(route.plan):
        answer, block = answers[number], leave or tower.depth
        assert answer.embedding.tolist() == [[number, block]]
        assert answer.exit_block.tolist() == answer.blocks_run.tolist() == [block]
        assert answer.early.tolist() == [leave is not None]
        assert answer.visited == (tuple(sorted(exit for exit in route.visited if exit <= block)),)
        assert np.isnan(answer.gate[0]) if leave is None else answer.gate[0] == leave


@settings(deadline=None, max_examples=60)
@given(streams())
def test_no_image_lags_and_no_batch_is_too_large(stream):
    """The first image without an answer is never further behind the last one read than was asked for."""
    tower, route, batch_size, max_lag = stream
    read: list[int] = []
    sizes: list[int] = []
    answered: set[int] = set()
    oldest = 0

    def watch(part: str, images: int) -> None:
        sizes.append(images)

    answers = run_stream(
        tower, pictures(len(route.plan), read), lambda: route, batch_size=batch_size, max_lag=max_lag, on_part=watch
    )
    for place, _ in answers:
        while oldest in answered:
            oldest += 1
        assert len(read) - oldest <= max_lag
        answered.add(place)
    assert all(size <= batch_size for size in sizes)


def test_late_blocks_run_nearly_full_when_half_of_the_images_leave_early():
    """At least nine tenths of a batch on average over a long stream, where compaction alone would leave half."""
    count, batch_size = 2000, 8
    generator = np.random.default_rng(0)
    plan = tuple(int(block) if block else None for block in generator.choice([2, 0, 4], count, p=[0.5, 0.3, 0.2]))
    tower, sizes = CountingTower(6, frozenset({2, 4})), defaultdict(list)
    answers = run_stream(
        tower,
        pictures(count),
        lambda: Planned(plan, frozenset({2, 4})),
        batch_size=batch_size,
        max_lag=256,
        on_part=lambda part, images: sizes[part].append(images),
    )
    assert len(list(answers)) == count
    for block in (3, 4, 5, 6):
        assert np.mean(sizes[f"block_{block:02d}"]) >= 0.9 * batch_size


def test_a_batch_that_has_come_together_runs_before_more_is_read():
    """The queue need not overflow first."""
    plan = (1, 1, None, None) * 3
    parts: list[tuple[str, int]] = []
    tower, route = CountingTower(2, frozenset({1})), Planned(plan, frozenset({1}))
    answers = run_stream(
        tower, pictures(12), lambda: route, batch_size=4, max_lag=99, on_part=lambda *told: parts.append(told)
    )
    assert len(list(answers)) == 12
    read = [("stem", 4), ("block_01", 4), ("exit_01", 4)]
    assert parts == [*read, *read, ("block_02", 4), ("tail", 4), *read, ("block_02", 2), ("tail", 2)]


def test_at_the_end_those_behind_late_exits_wait_for_those_behind_early_ones():
    """So that the last block runs once for both."""
    plan, sizes = (2, 2, 2, None, 1, 1, 1, None), defaultdict(list)
    routes = iter([Planned(plan, frozenset({2}))] * 4 + [Planned(plan, frozenset({1, 2}))] * 4)
    tower = CountingTower(3, frozenset({1, 2}))
    answers = run_stream(
        tower, pictures(8), lambda: next(routes), batch_size=4, max_lag=99, on_part=lambda *t: sizes[t[0]].append(t[1])
    )
    assert len(list(answers)) == 8
    assert sizes["block_03"] == sizes["tail"] == [2]


def test_an_exit_runs_for_those_who_visit_it():
    """Images of one batch may have routes that differ."""
    parts: list[tuple[str, int]] = []
    routes = iter([Planned((None, 1, None), frozenset(exits)) for exits in ((), {1}, {1})])
    answers = run_stream(
        CountingTower(2, frozenset({1})),
        pictures(3),
        lambda: next(routes),
        batch_size=3,
        max_lag=3,
        on_part=lambda *told: parts.append(told),
    )
    assert sorted(place for place, _ in answers) == [0, 1, 2]
    assert parts == [("stem", 3), ("block_01", 3), ("exit_01", 2), ("block_02", 2), ("tail", 2)]


def test_an_answer_keeps_no_arrays_of_its_batch_alive():
    """Whoever collects answers would collect batches."""
    route = Planned((1, None, None), frozenset({1}))
    tower = CountingTower(2, frozenset({1}))
    for _, answer in run_stream(tower, pictures(3), lambda: route, batch_size=3, max_lag=3):
        assert answer.embedding.base is answer.probabilities.base is answer.gate.base is None


def test_images_are_read_when_they_are_needed():
    """An endless input works, and nothing is read ahead."""
    read: list[int] = []
    route = Planned((1,) * 100, frozenset({1}))
    answers = run_stream(CountingTower(2, frozenset({1})), pictures(100, read), lambda: route, batch_size=4, max_lag=16)
    assert read == []
    next(answers)
    assert read == [0, 1, 2, 3]


def test_few_wait_at_any_time():
    """Each exit holds less than a batch, so memory is bounded."""
    count, batch_size, held = 400, 4, []
    plan = tuple(None if number % 9 == 0 else 1 + number % 3 for number in range(count))
    read: list[int] = []
    tower, route = CountingTower(4, frozenset({1, 2, 3})), Planned(plan, frozenset({1, 2, 3}))
    answers = run_stream(tower, pictures(count, read), lambda: route, batch_size=batch_size, max_lag=count)
    for answered, _ in enumerate(answers, start=1):
        held.append(len(read) - answered)
    assert max(held) <= 3 * (batch_size - 1) + batch_size


@given(st.permutations(range(12)))
def test_answers_are_put_in_order(order):
    """Their own order does not matter."""
    assert list(in_order((place, str(place)) for place in order)) == [str(place) for place in range(12)]


def test_answers_that_were_given_are_not_held():
    """A stream may be endless, so memory may not grow."""

    class Answer:
        pass

    answers = in_order((place, Answer()) for place in (1, 0, 2, 3))
    given = [weakref.ref(next(answers)) for _ in range(4)]
    assert [ref() is None for ref in given[:3]] == [True] * 3


@pytest.mark.parametrize("policy", [lraee.Adaptive(), lraee.Full(), lraee.ExitAt(5), Patience(1)], ids=repr)
@pytest.mark.parametrize("ordered", [True, False])
def test_a_stream_answers_as_its_images_one_by_one(model, photos, policy, ordered):
    """Label, exit and FLOPs equal; probabilities up to the kernels' float rounding."""
    alone = [model.classify(photo, policy=policy) for photo in photos]
    streamed = list(model.classify_stream(iter(photos), policy=policy, batch_size=5, ordered=ordered, max_lag=20))
    places = [prediction.position for prediction in streamed]
    assert (places if ordered else sorted(places)) == list(range(len(photos)))
    for prediction in streamed:
        wanted = alone[prediction.position]
        assert (prediction.label, prediction.exit_block, prediction.early, prediction.flops) == (
            wanted.label, wanted.exit_block, wanted.early, wanted.flops
        )  # fmt: skip
        assert dict(prediction.top) == pytest.approx(dict(wanted.top), abs=PROBABILITY_TOLERANCE)
        assert prediction.embedding == pytest.approx(wanted.embedding, abs=PROBABILITY_TOLERANCE)


def test_other_calls_between_two_answers_disturb_nothing(model, photos):
    """They share the buffers of the thread."""
    wanted = [prediction.top for prediction in model.classify_stream(photos, batch_size=4)]
    got = []
    for prediction in model.classify_stream(photos, batch_size=4):
        got.append(prediction.top)
        model.classify(photos[7], policy=lraee.Full())
    assert got == wanted


def test_what_a_stream_cannot_do_is_refused_at_the_call(model, photos):
    """Not when the first answer is asked for."""
    with pytest.raises(PolicyError, match="a stream has no common start for a deadline; use classify"):
        model.classify_stream(photos, policy=lraee.Deadline(5))
    with pytest.raises(ImageError, match="batch_size is 0, wanted 1 to max_lag, which is 1024"):
        model.classify_stream(photos, batch_size=0)
    with pytest.raises(ImageError, match="batch_size is 8, wanted 1 to max_lag, which is 7"):
        model.classify_stream(photos, max_lag=7)


def test_a_stream_without_images_has_no_answers(model):
    """It raises no error either."""
    assert list(model.classify_stream([])) == []


def test_an_image_that_cannot_be_read_ends_the_stream(model, photos):
    """The usual error is raised."""
    with pytest.raises(ImageError, match="there is no such file"):
        list(model.classify_stream([photos[0], "missing.png"]))
