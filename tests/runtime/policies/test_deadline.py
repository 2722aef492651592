"""A deadline gives the best answer that can be had in time, and is late by one part at most."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import lraee
from lraee.bundle.manifest import Manifest
from lraee.bundle.manifest_file import read_manifest
from lraee.engine.orchestrator import Answers, run
from lraee.errors import PolicyError
from lraee.policies import Deadline, ExitAt, Full, Verdict
from lraee.policies.deadline import DeadlineRoute
from lraee.policies.part_costs import PartCosts
from lraee.policies.spec import parse_policy


@dataclass
class TimedTower:
    """Tokens are block numbers; each part advances a clock by its cost."""

    costs: dict[str, float]
    depth: int
    exits: tuple[int, ...]
    now: float = 0.0
    ends: list[tuple[str, float]] = field(default_factory=list)
    """Each part that ran with the time when it ended."""

    def clock(self) -> float:
        return self.now

    def spend(self, part: str) -> None:
        self.now += self.costs[part]
        self.ends.append((part, self.now))

    def stem(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.spend("stem")
        return np.zeros((len(pixels), 1, 1), np.float32)

    def block(self, number: int, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        self.spend(f"block_{number:02d}")
        return tokens + np.float32(1)

    def has_exit(self, number: int) -> bool:
        return number in self.exits

    def exit(self, number: int, tokens: NDArray[np.float32], rows: NDArray[np.intp]) -> Verdict:
        self.spend(f"exit_{number:02d}")
        return Verdict(*self._answer(tokens), np.zeros((len(rows), 3), np.float32), rows / np.float32(10), rows)

    def tail(self, tokens: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.spend("tail")
        return self._answer(tokens)

    @staticmethod
    def _answer(tokens: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return tokens[:, 0], np.ones((len(tokens), 2), np.float32) / 2

    def answer(
        self, seconds: float, memory: PartCosts | None = None, images: int = 1, inner: object = None
    ) -> tuple[Answers, float, float]:
        """Run a batch; its answers, and when the time was up and when the answers were there."""
        self.ends.clear()
        end = self.now + seconds
        route = DeadlineRoute(end, self.clock, self.depth, self.exits, inner)
        if memory is not None:
            route.lends(memory)
        return run(self, np.zeros((images, 1, 1, 3), np.uint8), route), end, self.now


def even(depth: int, block: float = 10.0, other: float = 1.0, exits: tuple[int, ...] | None = None) -> TimedTower:
    """A tower whose blocks all cost `block` and whose other parts cost `other`."""
    costs = {"stem": other, "tail": other}
    for number in range(1, depth + 1):
        costs |= {f"block_{number:02d}": block, f"exit_{number:02d}": other}
    return TimedTower(costs, depth, exits if exits is not None else tuple(range(1, depth + 1)))


@st.composite
def towers(draw: st.DrawFn) -> TimedTower:
    """Draw any depth, an exit after every block, and any costs."""
    depth = draw(st.integers(1, 6))
    tower = even(depth)
    tower.costs = {part: draw(st.floats(0.001, 50)) for part in tower.costs}
    return tower


def late_parts(tower: TimedTower, end: float) -> list[str]:
    """The parts of the last run that were not ready when the time was up, without numbers; the stem has to run."""
    return [part.split("_")[0] for part, ended in tower.ends if ended > end and part != "stem"]


ONE_PART = ([], ["block"], ["exit"], ["tail"], ["block", "exit"])


@settings(deadline=None, max_examples=60)
@given(towers(), st.floats(0, 400), st.integers(0, 3))
def test_an_answer_is_late_by_a_block_and_its_exit_at_most(tower: TimedTower, seconds: float, calls_before: int):
    """Whatever the parts cost, and whatever the model has learned of them before."""
    memory = PartCosts()
    for _ in range(calls_before):
        tower.answer(1000, memory)
    answers, end, finished = tower.answer(seconds, memory)
    assert late_parts(tower, end) in ONE_PART
    assert finished == tower.ends[-1][1]
    assert answers.exit_block[0] >= 1


@settings(deadline=None, max_examples=60)
@given(towers(), st.floats(0, 400), st.data())
def test_costs_that_change_from_call_to_call_change_nothing_in_that(tower: TimedTower, seconds: float, data):
    """A prediction that is wrong costs depth or one part of lateness, not more."""
    memory = PartCosts()
    for _ in range(3):
        tower.answer(1000, memory)
    tower.costs = {part: data.draw(st.floats(0.001, 50)) for part in tower.costs}
    _, end, _ = tower.answer(seconds, memory)
    assert late_parts(tower, end) in ONE_PART


@settings(deadline=None)
@given(st.integers(1, 8), st.floats(0.1, 20), st.floats(0.01, 5), st.floats(0, 250))
def test_a_model_that_knows_its_parts_is_not_late(depth: int, block: float, other: float, seconds: float):
    """Except where not even the first exit could be reached."""
    tower, memory = even(depth, block, other), PartCosts()
    for _ in range(40):
        tower.answer(1e6, memory)
        tower.answer(1e-9, memory)  # so that exits are timed too
    _, end, finished = tower.answer(seconds, memory)
    first = 2 * other + block
    assert finished <= max(end, end - seconds + first) + 1e-6


def test_more_time_gives_a_deeper_answer():
    """The run goes to the tail, and evaluates no exit that the time left allows to skip."""
    tower, memory = even(6), PartCosts()
    for _ in range(60):
        tower.answer(1e6, memory)
        tower.answer(1e-9, memory)
    answered = [tower.answer(seconds, memory)[0] for seconds in range(1, 90)]
    depths = [int(answers.exit_block[0]) for answers in answered]
    assert depths == sorted(depths)
    assert set(depths) == set(range(1, 7))
    assert all(len(answers.visited[0]) <= 3 for answers in answered)
    assert not answered[-1].early[0]
    assert answered[-1].visited == ((),)


def test_the_first_call_asks_every_exit():
    """Nothing is known of the parts then, so an answer is kept as early as possible."""
    answers, _, _ = even(4).answer(1e6)
    assert answers.visited == ((1, 2, 3, 4),)
    assert not answers.early[0]


def test_an_exit_is_passed_by_when_the_way_on_fits_twice():
    """And asked when it does not, although there would be time enough to go on."""
    tower, memory = even(2, exits=(1,)), PartCosts()
    for _ in range(2):
        tower.answer(1e6, memory)
    way = memory.predict(("block_02", "tail"), 1)
    for times, asked in ((2.01, False), (1.99, True)):
        route = DeadlineRoute(100 + times * way, lambda: 100.0, 2, (1,))
        route.lends(memory)
        route.ran("stem", 1)
        assert route.visits(1) == asked


@pytest.mark.parametrize(("seconds", "in_time"), [(0.031, True), (0.03125, False)])
def test_a_deadline_is_in_milliseconds_from_the_time_when_it_is_bound(manifest, seconds: float, in_time: bool):
    """Parts without an estimate may all run before it, and none from it on."""
    now = [64.0]
    route = Deadline(31.25, clock=lambda: now[0]).bind(manifest)
    now[0] += seconds
    verdict = Verdict(*(np.zeros((1, 3), np.float32),) * 3, np.zeros(1, np.float32), np.zeros(1, np.intp))
    assert route.leaves(1, verdict).tolist() == [not in_time]


def test_when_a_block_takes_too_long_the_answer_kept_before_it_is_returned():
    """Its exit is not even asked; what ran is counted."""
    tower = even(4)
    tower.costs["block_03"] = 1000
    answers, _, _ = tower.answer(60)
    assert [part for part, _ in tower.ends][-1] == "block_03"
    assert answers.exit_block.tolist() == [2]
    assert answers.blocks_run.tolist() == [3]
    assert answers.early.tolist() == [True]
    assert answers.embedding.tolist() == [[2]]
    assert answers.visited == ((1, 2),)


def learned(tower: TimedTower) -> PartCosts:
    """What a model knows after many calls."""
    memory = PartCosts()
    for _ in range(60):
        tower.answer(1e6, memory)
        tower.answer(1e-9, memory)  # so that exits are timed too
    return memory


def test_an_exit_is_still_asked_when_the_way_behind_it_does_not_fit():
    """Stem, a block and an exit take 12, the second block 10; then 3 are left, enough for its exit and for no more."""
    tower = even(4)
    answers, _, _ = tower.answer(25, learned(tower))
    assert answers.visited == ((1, 2),)
    assert answers.exit_block.tolist() == [2]


def test_where_blocks_have_no_exit_the_whole_way_to_the_next_one_must_fit():
    """Behind block 2, which took long, an exit alone would fit, but two blocks come before it."""
    tower = even(5, exits=(1, 4))
    memory = learned(tower)
    tower.costs["block_02"] = 20
    answers, _, _ = tower.answer(45, memory)
    assert answers.exit_block.tolist() == [1]
    assert answers.blocks_run.tolist() == [2]


def test_the_other_policy_sees_its_exits_however_much_time_there_is():
    """The clock alone would pass them by."""
    tower = even(4)
    answers, _, _ = tower.answer(1e6, learned(tower), inner=ExitAt(2))
    assert answers.exit_block.tolist() == [2]
    assert answers.visited == ((2,),)


def test_who_leaves_makes_room_for_the_rest():
    """Two images have not time enough, one alone has."""

    class First:
        def visits(self, block: int) -> bool:
            return True

        def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
            return verdict.rows == 0

    tower = even(2, exits=(1,))
    route = DeadlineRoute(15, lambda: 0.0, 2, (1,), First())
    route.lends(learned(tower))
    two = Verdict(*(np.zeros((2, 3), np.float32),) * 3, np.zeros(2, np.float32), np.arange(2))
    assert route.leaves(1, two).tolist() == [True, False]


def test_when_the_time_is_up_before_the_first_exit_the_run_goes_on_to_it():
    """There is always an answer for each image."""
    answers, _, _ = even(4, exits=(3,)).answer(0.5)
    assert answers.exit_block.tolist() == [3]


def test_all_images_of_a_batch_share_the_deadline_and_leave_by_gates_before_it():
    """Images that leave by the other policy keep that answer; the rest get the one kept when the time is up."""

    class Second:
        """The second image leaves after block 1."""

        def visits(self, block: int) -> bool:
            return block == 1

        def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
            assert block == 1
            return verdict.rows == 1

    tower = even(4)
    tower.costs["block_04"] = 1000
    answers, _, _ = tower.answer(60, images=3, inner=Second())
    assert answers.exit_block.tolist() == [3, 1, 3]
    assert answers.blocks_run.tolist() == [4, 1, 4]
    assert answers.embedding[:, 0].tolist() == [3, 1, 3]
    assert answers.gate == pytest.approx([0.0, 0.1, 0.2])


def test_one_hiccup_does_not_make_a_part_too_dear_for_ever():
    """A run that took a thousand times as long counts as a few."""
    costs = PartCosts()
    for _ in range(30):
        costs.note("tail", 1, 0.001)
    costs.note("tail", 1, 1.0)
    predicted = costs.predict(["tail"], 1)
    assert predicted is not None
    assert predicted < 0.005


def test_costs_follow_the_device():
    """A processor that grows hot is noticed within a few calls, and one that cools down too."""
    costs = PartCosts()
    assert costs.predict(["block_01"], 1) is None
    for seconds in (0.001, 0.008, 0.002):
        for _ in range(60):
            costs.note("block_01", 1, seconds)
        assert costs.predict(["block_02", "tail"], 1) == pytest.approx(2 * seconds, rel=0.01)
        assert costs.predict(["block_02"], 8) == pytest.approx(8 * seconds, rel=0.01)


@pytest.fixture(scope="module")
def manifest(golden) -> Manifest:
    """Has one exit, after block 1."""
    return read_manifest(golden)


@pytest.mark.parametrize("ms", [0, -1, math.nan, math.inf])
def test_a_time_that_is_none_is_refused(manifest, ms):
    """It is refused before anything runs."""
    with pytest.raises(PolicyError, match=r"^the deadline is .* ms, wanted a time above 0, such as 40$"):
        Deadline(ms).bind(manifest)


def test_a_bundle_without_exits_and_a_policy_it_cannot_follow_are_refused(manifest):
    """The message says what would help."""
    bare = dataclasses.replace(manifest, exits=(), operating_points=(), default_point=None)
    with pytest.raises(PolicyError, match=r"this bundle has none; export it again with lraee-export --exits all$"):
        Deadline(5).bind(bare)
    with pytest.raises(PolicyError, match=r"no exit after block 2"):
        Deadline(5, ExitAt(2)).bind(manifest)


def test_the_spec_of_a_deadline():
    """It is typed in milliseconds."""
    assert parse_policy("deadline=40") == Deadline(40.0)
    for spec in ("deadline", "deadline=", "deadline=-1", "deadline=1e3", "deadline=nan"):
        with pytest.raises(PolicyError, match=r"deadline=MS"):
            parse_policy(spec)


def test_the_shipped_model_answers_in_time(photos):
    """With time for everything as at full depth; with none at the first exit, whatever the source of the image."""
    model = lraee.load("reference", threads=1)
    for _ in range(3):
        ample = model.classify(photos[0], policy=Deadline(60_000))
    full = model.classify(photos[0], policy=Full())
    assert (ample.top, ample.exit_block, ample.flops) == (full.top, full.exit_block, full.flops)
    first = model.manifest.exits[0].block
    none = model.classify(photos[0], policy=Deadline(1e-6))
    assert none.top == model.classify(photos[0], policy=ExitAt(first)).top
    assert none.exit_block == first
    start = time.perf_counter()
    answers = model.classify_batch(photos, policy=Deadline(5), batch_size=8)
    assert len(answers) == len(photos)
    assert all(answer.exit_block >= first for answer in answers)
    assert time.perf_counter() - start < 5


def test_a_deadline_counts_from_the_call_with_the_reading_of_the_image(photos, monkeypatch):
    """Reading takes the whole time here, so the answer is that of the first exit."""
    model = lraee.load("reference", threads=1)
    now = [0.0]
    real = lraee.model.preprocess

    def slow(*given, **settings):
        now[0] += 1.0
        return real(*given, **settings)

    monkeypatch.setattr(lraee.model, "preprocess", slow)
    answer = model.classify(photos[0], policy=Deadline(900, clock=lambda: now[0]))
    assert answer.exit_block == model.manifest.exits[0].block
    assert not model.classify(photos[0], policy=Deadline(1100, clock=lambda: now[0])).early
