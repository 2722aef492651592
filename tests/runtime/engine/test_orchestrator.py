"""Images leave at their own depth, the rest is compacted, and every image gets its own answer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lraee.engine.orchestrator import joined, run
from lraee.policies import Full
from lraee.policies.base import Verdict
from lraee.policies.part_costs import PartCosts

LABELS = 5


@dataclass
class FakeTower:
    """Tokens are (batch, 1, 2): which image it is, and how many blocks it has passed."""

    depth: int
    exits: frozenset[int] = frozenset()
    batches: list[list[int]] = field(default_factory=list)
    """The images that each block met."""

    def stem(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        identity = pixels[:, 0, 0, 0].astype(np.float32)
        return np.stack([identity, np.zeros_like(identity)], axis=1)[:, None, :]

    def block(self, number: int, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        assert (tokens[:, 0, 1] == number - 1).all()  # every block before this one has run, once
        self.batches.append([int(identity) for identity in tokens[:, 0, 0]])
        return tokens + np.array([0, 1], np.float32)

    def has_exit(self, number: int) -> bool:
        return number in self.exits

    def exit(self, number: int, tokens: NDArray[np.float32], rows: NDArray[np.intp]) -> Verdict:
        embedding, probabilities = self.tail(tokens)
        features = np.zeros((len(tokens), 3), np.float32)
        return Verdict(embedding, probabilities, features, self.gate(number, embedding[:, 0]), rows)

    def tail(self, tokens: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return tokens[:, 0], np.eye(LABELS, dtype=np.float32)[tokens[:, 0, 0].astype(int) % LABELS]

    @staticmethod
    def gate(number: int, identity: NDArray[np.float32]) -> NDArray[np.float32]:
        """A value that tells exit and image apart."""
        return (identity + 100 * number).astype(np.float32)


@dataclass(frozen=True)
class Planned:
    """Each image of the batch leaves after the block that the plan names."""

    plan: tuple[int | None, ...]
    visited: frozenset[int]

    def visits(self, block: int) -> bool:
        return block in self.visited

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        return np.array([self.plan[row] == block for row in verdict.rows])


@dataclass(frozen=True)
class Stopped(Planned):
    """A plan that ends the run after a block; notes what it is told."""

    last: int
    told: list[tuple[str, int]] = field(default_factory=list)

    def lends(self, costs: PartCosts) -> None:
        pass

    def ran(self, part: str, images: int) -> None:
        self.told.append((part, images))

    def stops(self, block: int) -> bool:
        return block == self.last


def batch(count: int) -> NDArray[np.uint8]:
    """Images that carry their number in the batch, in falling order so that sorting would be noticed."""
    return np.arange(count, dtype=np.uint8)[::-1, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


@st.composite
def plans(draw: st.DrawFn) -> tuple[int, frozenset[int], Planned]:
    """A depth, exits, and where each image leaves."""
    depth = draw(st.integers(1, 6))
    exits = frozenset(draw(st.sets(st.integers(1, depth))))
    visited = frozenset(draw(st.sets(st.sampled_from(sorted(exits))))) if exits else frozenset()
    leave = st.sampled_from([None, *sorted(visited)])
    return depth, exits, Planned(tuple(draw(st.lists(leave, min_size=1, max_size=12))), visited)


@settings(deadline=None)
@given(plans())
def test_every_image_gets_its_own_answer_whatever_the_pattern_of_leaving(case):
    """Embedding, probabilities, block, gate and visits of each image are those of its own depth."""
    depth, exits, route = case
    tower, count = FakeTower(depth, exits), len(route.plan)
    pixels = batch(count)
    answers = run(tower, pixels, route)
    for row, leave in enumerate(route.plan):
        identity, block = int(pixels[row, 0, 0, 0]), leave or depth
        assert answers.embedding[row].tolist() == [identity, block]
        assert answers.probabilities[row].argmax() == identity % LABELS
        assert answers.exit_block[row] == block
        assert answers.early[row] == (leave is not None)
        assert answers.visited[row] == tuple(sorted(number for number in route.visited if number <= block))
        if leave is None:
            assert np.isnan(answers.gate[row])
        else:
            assert answers.gate[row] == identity + 100 * block


@settings(deadline=None)
@given(plans())
def test_a_block_runs_for_those_who_are_still_there_in_their_order(case):
    """Compaction drops the images that left, keeps the order, and stops when none remains."""
    depth, exits, route = case
    tower, parts = FakeTower(depth, exits), Counter()
    order: list[str] = []

    def on_part(name: str, images: int) -> None:
        order.append(name)
        parts[name] += images

    pixels = batch(len(route.plan))
    run(tower, pixels, route, on_part=on_part)
    blocks = [leave or depth for leave in route.plan]
    left = [[row for row, block in enumerate(blocks) if block >= number] for number in range(1, max(blocks) + 1)]
    assert tower.batches == [[int(pixels[row, 0, 0, 0]) for row in rows] for rows in left]
    through = sum(leave is None for leave in route.plan)
    wanted = {"stem": len(route.plan)} | {f"block_{number:02d}": len(rows) for number, rows in enumerate(left, 1)}
    wanted |= {f"exit_{number:02d}": len(left[number - 1]) for number in route.visited if number <= len(left)}
    assert parts == wanted | ({"tail": through} if through else {})
    assert len(order) == len(set(order))


def test_who_is_left_when_a_run_stops_gets_the_last_exits_answer():
    """Although others have left through that exit."""
    route = Stopped((2, None, 1, None), frozenset({1, 2}), last=3)
    answers = run(FakeTower(5, frozenset({1, 2})), batch(4), route)
    assert answers.embedding.tolist() == [[3, 2], [2, 2], [1, 1], [0, 2]]
    assert answers.exit_block.tolist() == [2, 2, 1, 2]
    assert answers.blocks_run.tolist() == [2, 3, 1, 3]
    assert answers.gate.tolist() == [203, 202, 101, 200]
    assert answers.early.all()


def test_a_route_that_watches_the_time_and_the_caller_are_told_the_same():
    """Each part, with the images that it ran for."""
    route, told = Stopped((1, None), frozenset({1}), last=2), list[tuple[str, int]]()
    run(FakeTower(5, frozenset({1})), batch(2), route, on_part=lambda name, images: told.append((name, images)))
    assert told == route.told == [("stem", 2), ("block_01", 2), ("exit_01", 2), ("block_02", 1)]


def test_an_exit_that_the_route_does_not_visit_costs_nothing():
    """The tower has the exit, and it is not evaluated."""
    parts: list[str] = []
    answers = run(FakeTower(3, frozenset({1, 2})), batch(2), Full(), on_part=lambda name, _: parts.append(name))
    assert parts == ["stem", "block_01", "block_02", "block_03", "tail"]
    assert answers.visited == ((), ())


def test_an_exit_that_the_tower_does_not_have_is_not_asked():
    """Although the route would visit it."""
    answers = run(FakeTower(2), batch(1), Planned((None,), frozenset({1})))
    assert answers.visited == ((),)


def test_one_image_alone_leaves_and_nothing_runs_behind_it():
    """A batch of one, the usual one on a board."""
    tower = FakeTower(4, frozenset({1, 2}))
    answers = run(tower, batch(1), Planned((2,), frozenset({1, 2})))
    assert answers.embedding.shape == (1, 2)
    assert answers.exit_block.tolist() == [2]
    assert answers.early.tolist() == [True]
    assert answers.visited == ((1, 2),)
    assert len(tower.batches) == 2


def test_leaving_behind_the_last_block_is_leaving_early():
    """The exit's answer counts then, not the tail's."""
    parts: list[str] = []
    route = Planned((2, 2), frozenset({2}))
    answers = run(FakeTower(2, frozenset({2})), batch(2), route, on_part=lambda name, _: parts.append(name))
    assert answers.early.all()
    assert "tail" not in parts


def test_answers_have_the_types_that_are_promised():
    """For whoever writes them to a file."""
    answers = run(FakeTower(2, frozenset({1})), batch(3), Planned((1, None, 1), frozenset({1})))
    types = [answers.embedding.dtype, answers.probabilities.dtype, answers.exit_block.dtype]
    assert types == [np.float32, np.float32, np.int32]
    assert answers.early.dtype == bool
    assert answers.gate.dtype == np.float32


def test_batches_that_are_joined_keep_what_each_image_got():
    """Image by image, in the order of the batches."""
    tower = FakeTower(5, frozenset({1, 2}))
    plans = [(2, None, 1, None), (None, 2, 1)]
    batches = [run(tower, batch(len(plan)), Stopped(plan, frozenset({1, 2}), last=3)) for plan in plans]
    both = joined(batches)
    assert both.schedule is None
    for name in (each.name for each in fields(both) if each.name != "schedule"):
        one_by_one = [np.asarray(value).tolist() for answers in batches for value in getattr(answers, name)]
        assert [np.asarray(value).tolist() for value in getattr(both, name)] == one_by_one, name
