"""A live service runs images of many callers in common batches, and each gets its own answer."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import lraee
from lraee.engine.continuous import ContinuousBatching
from lraee.engine.orchestrator import Answers
from lraee.errors import PolicyError, ServiceError, SettingsError
from lraee.policies import Adaptive, Deadline, ExitAt, Full, Patience
from lraee.policies.base import Verdict

WAIT_S = 20.0
TOLERANCE = 1e-5


@dataclass
class GatedTower:
    """Tokens are (batch, 1, 2): which image it is, and how many blocks it passed; the stem waits for a gate."""

    depth: int = 4
    exits: frozenset[int] = frozenset({1, 2, 3})
    scale: float = 1.0
    """Stands for the labels: it is in the answers of exits and tail."""
    gate: threading.Event = field(default_factory=threading.Event)
    parts: list[tuple[str, list[int]]] = field(default_factory=list)
    fails: set[int] = field(default_factory=set)
    """Images whose batch fails."""

    def stem(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        numbers = pixels[:, 0, 0, 0].astype(np.float32)
        self.note("stem", numbers)
        assert self.gate.wait(WAIT_S)
        if self.fails & set(numbers.astype(int)):
            raise RuntimeError("a part has failed")
        return np.stack([numbers, np.zeros_like(numbers)], axis=1)[:, None, :]

    def block(self, number: int, tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        assert (tokens[:, 0, 1] == number - 1).all()  # every block before this one has run, once
        self.note(f"block_{number:02d}", tokens[:, 0, 0])
        return tokens + np.array([0, 1], np.float32)

    def has_exit(self, number: int) -> bool:
        return number in self.exits

    def exit(self, number: int, tokens: NDArray[np.float32], rows: NDArray[np.intp]) -> Verdict:
        self.note(f"exit_{number:02d}", tokens[:, 0, 0])
        features = np.zeros((len(tokens), 3), np.float32)
        return Verdict(*self.answers(tokens), features, np.full(len(tokens), number, np.float32), rows)

    def tail(self, tokens: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.note("tail", tokens[:, 0, 0])
        return self.answers(tokens)

    def answers(self, tokens: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return tokens[:, 0] * np.float32(self.scale), np.ones((len(tokens), 2), np.float32)

    def note(self, part: str, numbers: NDArray[np.float32]) -> None:
        self.parts.append((part, [int(number) for number in numbers]))

    def ran(self, part: str) -> list[list[int]]:
        """The images of each batch of a part."""
        return [numbers for name, numbers in self.parts if name == part]


@dataclass(frozen=True)
class Leaves:
    """Visits some exits and leaves at one of them."""

    at: int | None = None
    visited: frozenset[int] = frozenset({1, 2, 3})
    schedule: str | None = None

    def visits(self, block: int) -> bool:
        return block in self.visited

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        return np.array([self.at == block])


class Refuses(Leaves):
    """Cannot be followed at its first exit."""

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        raise PolicyError("cannot be followed")


def pixels(number: int) -> NDArray[np.uint8]:
    """An image that carries its number."""
    return np.full((1, 1, 3), number, np.uint8)


def batches(tower: GatedTower, **options: Any) -> ContinuousBatching:
    """Runs the blocks of a fake tower."""
    return ContinuousBatching(lambda schedule: tower, **options)


def result(future: Future[Answers]) -> tuple[float, int]:
    """Which image was answered, with the scale of its tower, and after which block it left."""
    answer = future.result(WAIT_S)
    return float(answer.embedding[0, 0]), int(answer.exit_block[0])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([None, 1, 2, 3]), max_size=40), st.integers(1, 6), st.integers(1, 20))
def test_every_image_gets_its_own_answer_once(plan: list[int | None], batch_size: int, max_lag: int) -> None:
    """Whatever the pattern of leaving, the batch size and the lag."""
    tower = GatedTower()
    running = batches(tower, batch_size=batch_size, max_lag=max_lag)
    futures = [running.submit(tower, pixels(number), Leaves(at)) for number, at in enumerate(plan)]
    tower.gate.set()
    assert [result(future) for future in futures] == [(number, at or 4) for number, at in enumerate(plan)]
    assert running.pending == 0
    running.close()
    assert all(len(numbers) <= batch_size for _, numbers in tower.parts)


def test_an_image_alone_is_not_kept_waiting() -> None:
    """No batch waits for images that may not come."""
    tower = GatedTower()
    tower.gate.set()
    running = batches(tower)
    assert result(running.submit(tower, pixels(7), Leaves(None))) == (7, 4)
    assert tower.ran("block_04") == [[7]]
    running.close()


@pytest.mark.parametrize(("others", "choices"), [(0, 1), (1, 3)])
def test_a_batch_goes_on_at_once_where_there_are_no_other_images(
    others: int, choices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits after an exit only for images that are there: those in the same batch are not others."""
    tower = GatedTower()
    running = batches(tower, batch_size=4)
    first = running.submit(tower, pixels(0), Leaves(None))
    while not tower.parts:
        time.sleep(0.001)
    chosen: list[object] = []
    choose = running._next
    monkeypatch.setattr(running, "_next", lambda: chosen.append(step := choose()) or step)
    later = [running.submit(tower, pixels(number), Leaves(None)) for number in range(1, 1 + others)]
    tower.gate.set()
    assert [result(future) for future in (first, *later)] == [(number, 4) for number in range(1 + others)]
    running.close()
    assert len(chosen) == choices  # the last one says that there is nothing left
    assert tower.ran("block_04") == [[*range(1 + others)]]


def test_a_place_that_is_free_is_filled_at_once() -> None:
    """Images that came meanwhile run next, and those that stayed join them in a full batch."""
    tower = GatedTower()
    running = batches(tower, batch_size=2)
    first = running.submit(tower, pixels(0), Leaves(None, frozenset({1})))
    while not tower.parts:
        time.sleep(0.001)
    later = [running.submit(tower, pixels(number), Leaves(at, frozenset({1}))) for number, at in ((1, 1), (2, None))]
    tower.gate.set()
    assert [result(future) for future in (first, *later)] == [(0, 4), (1, 1), (2, 4)]
    running.close()
    assert tower.ran("stem") == [[0], [1, 2]]
    assert tower.ran("block_02") == [[0, 2]]


def test_images_with_other_labels_share_the_blocks_and_no_exit() -> None:
    """Exits and tail run for each set of labels in turn."""
    tower = GatedTower()
    other = GatedTower(scale=10.0, gate=tower.gate)
    running = batches(tower, batch_size=4)
    blocker = running.submit(tower, pixels(9), Leaves(1))
    while not tower.parts:
        time.sleep(0.001)
    futures = [
        running.submit(other if number % 2 else tower, pixels(number), Leaves(2 if number < 2 else None))
        for number in range(4)
    ]
    tower.gate.set()
    assert result(blocker) == (9, 1)
    assert [result(future) for future in futures] == [(0, 2), (10, 2), (2, 4), (30, 4)]
    running.close()
    assert tower.ran("block_01") == [[9], [0, 1, 2, 3]]
    assert (tower.ran("exit_02"), other.ran("exit_02")) == ([[0, 2]], [[1, 3]])
    assert (tower.ran("tail"), other.ran("tail"), other.ran("block_03")) == ([[2]], [[3]], [])


def test_images_of_other_schedules_run_apart() -> None:
    """Their blocks are others; those that came first go first."""
    towers = {None: GatedTower(), "merge-30": GatedTower(scale=2.0)}
    running = ContinuousBatching(lambda schedule: towers[schedule], batch_size=8)
    blocker = running.submit(towers[None], pixels(9), Leaves(1))
    while not towers[None].parts:
        time.sleep(0.001)
    names = (None, "merge-30", None, "merge-30")
    futures = [
        running.submit(towers[name], pixels(number), Leaves(1, schedule=name)) for number, name in enumerate(names)
    ]
    for tower in towers.values():
        tower.gate.set()
    assert [result(future)[0] for future in (blocker, *futures)] == [9, 0, 2, 2, 6]
    assert futures[1].result().schedule == "merge-30"
    running.close()
    assert (towers[None].ran("stem"), towers["merge-30"].ran("stem")) == ([[9], [0, 2]], [[1, 3]])


def test_an_image_is_not_overtaken_for_ever() -> None:
    """One that waits alone is answered although new images keep coming."""
    tower = GatedTower()
    running = batches(tower, batch_size=4, max_lag=8)
    tower.gate.set()
    slow = running.submit(tower, pixels(255), Leaves(None))
    count = 0
    futures = []
    while not slow.done():
        futures.append(running.submit(tower, pixels(count % 200), Leaves(1)))
        count += 1
        assert count < 100_000
    assert result(slow) == (255, 4)
    running.close()
    assert all(future.done() for future in futures)


@pytest.mark.parametrize(("max_wait_s", "order"), [(0.0, [255, 1]), (60.0, [1, 255])])
def test_an_image_that_has_waited_long_goes_before_new_ones(max_wait_s: float, order: list[int]) -> None:
    """It waits after block 1 when another arrives, which would run first: there is no full batch, and no lag yet."""
    tower = GatedTower()
    running = batches(tower, batch_size=2, max_wait_s=max_wait_s)
    done: list[int] = []

    def submit(number: int, at: int | None) -> Future[Answers]:
        future = running.submit(tower, pixels(number), Leaves(at))
        future.add_done_callback(lambda _: done.append(number))
        return future

    first = submit(255, None)
    while not tower.ran("stem"):
        time.sleep(0.001)
    other = submit(1, 1)
    tower.gate.set()
    assert [result(future) for future in (first, other)] == [(255, 4), (1, 1)]
    running.close()
    assert done == order


def test_a_cancelled_image_leaves_its_queue() -> None:
    """Also one that waits between two exits; its place is free."""
    tower = GatedTower()
    running = batches(tower, batch_size=1)
    blocker = running.submit(tower, pixels(0), Leaves(1))
    futures = [running.submit(tower, pixels(number), Leaves(1)) for number in range(1, 5)]
    assert futures[1].cancel()
    tower.gate.set()
    assert [result(future)[0] for future in (blocker, futures[0], *futures[2:])] == [0, 1, 3, 4]
    with pytest.raises(CancelledError):
        futures[1].result()
    running.close()
    assert [2] not in tower.ran("stem")
    assert running.pending == 0


def test_an_image_that_is_cancelled_alone_runs_no_further_than_its_next_exit() -> None:
    """There is nobody whom it would hold up, but its blocks would be run for nothing."""
    tower = GatedTower()
    running = batches(tower)
    future = running.submit(tower, pixels(0), Leaves(None))
    while not tower.parts:
        time.sleep(0.001)
    assert future.cancel()
    tower.gate.set()
    running.close()
    assert [part for part, _ in tower.parts] == ["stem", "block_01", "exit_01"]


def test_a_part_that_fails_costs_its_own_batch_alone() -> None:
    """The error is that of the part; images before and after are answered."""
    tower = GatedTower(fails={1})
    tower.gate.set()
    running = batches(tower, batch_size=1)
    futures = [running.submit(tower, pixels(number), Leaves(1)) for number in range(3)]
    with pytest.raises(RuntimeError, match="a part has failed"):
        futures[1].result(WAIT_S)
    assert [result(futures[0])[0], result(futures[2])[0]] == [0, 2]
    assert running.is_alive
    running.close()


def test_a_route_that_cannot_be_followed_costs_its_own_image_alone() -> None:
    """The others of its batch go on."""
    tower = GatedTower()
    running = batches(tower, batch_size=4)
    routes = (Leaves(1), Refuses(), Leaves(None))
    futures = [running.submit(tower, pixels(number), route) for number, route in enumerate(routes)]
    tower.gate.set()
    with pytest.raises(PolicyError, match="cannot be followed"):
        futures[1].result(WAIT_S)
    assert [result(futures[0]), result(futures[2])] == [(0, 1), (2, 4)]
    running.close()


def test_closing_answers_what_was_accepted_and_refuses_what_comes_later() -> None:
    """It returns when all is answered."""
    tower = GatedTower()
    running = batches(tower, batch_size=2)
    futures = [running.submit(tower, pixels(number), Leaves(None)) for number in range(7)]
    threading.Timer(0.1, tower.gate.set).start()
    running.close()
    assert all(future.done() for future in futures)
    assert [result(future)[0] for future in futures] == list(range(7))
    with pytest.raises(ServiceError, match="no more images are accepted"):
        running.submit(tower, pixels(0), Leaves(None))


def test_a_thread_that_dies_fails_what_waits_and_says_so() -> None:
    """Nobody hangs, and nothing more is accepted."""
    tower = GatedTower()
    running = batches(tower, batch_size=1)
    futures = [running.submit(tower, pixels(number), Leaves(1)) for number in range(3)]
    while not tower.parts:
        time.sleep(0.001)
    running._forget_cancelled = lambda: 1 / 0  # type: ignore[method-assign,assignment,return-value]  # a fault of ours
    tower.gate.set()
    assert result(futures[0]) == (0, 1)
    for future in futures[1:]:
        with pytest.raises(ServiceError, match=r"has failed: division by zero; start the program again"):
            future.result(WAIT_S)
    assert not running.is_alive
    with pytest.raises(ServiceError, match="has failed"):
        running.submit(tower, pixels(0), Leaves(1))
    running.close()


def test_wrong_sizes_are_refused() -> None:
    """Before a thread is started."""
    for options in ({"batch_size": 0}, {"max_lag": 0}, {"batch_size": True}):
        with pytest.raises(SettingsError, match="wanted at least 1, a whole number"):
            batches(GatedTower(), **options)
    for seconds in (-1.0, float("nan")):
        with pytest.raises(SettingsError, match="wanted seconds, 0 or more"):
            batches(GatedTower(), max_wait_s=seconds)


def test_an_image_that_failed_on_its_way_into_a_queue_ends_nothing() -> None:
    """Where memory runs out there, it waits although its caller has its error; all others go on."""
    tower = GatedTower()
    running = batches(tower, batch_size=2)
    first = running.submit(tower, pixels(1), Leaves(None))
    while not tower.ran("stem"):
        time.sleep(0.001)
    others = [running.submit(tower, pixels(number), Leaves(None)) for number in (2, 3)]
    running._fail([0], MemoryError("no memory"))  # as the thread does; its image will wait after block 1
    tower.gate.set()
    with pytest.raises(MemoryError):
        first.result(WAIT_S)
    assert [result(other) for other in others] == [(2, 4), (3, 4)]
    running.close()


def test_many_threads_with_all_policies_and_labels_get_the_answers_of_the_model(model, photos) -> None:
    """Label, exit and visited exits are equal, probabilities up to rounding; deadlines give an answer in time."""
    relabelled = lraee.load("reference", threads=1)
    relabelled.set_labels(["footwear", "garment", "bag"])
    models = (model, relabelled)
    policies = (Adaptive(), Full(), ExitAt(5), Patience(1), Adaptive("fast"))
    running = ContinuousBatching(model.parts.under, batch_size=5)
    parts = (model.parts, model.parts.with_labels(relabelled.parts.labels))
    wrong: list[str] = []

    def work(start: int) -> None:
        for turn in range(start, start + 40):
            which, photo, policy = turn % 2, photos[turn % len(photos)], policies[turn % len(policies)]
            route = policy.bind(model.manifest)
            got = running.submit(parts[which].for_route(route), photo, route).result(WAIT_S)
            wanted = models[which].run_pixels(photo[None], policy=policy)
            same = (got.exit_block, got.early, got.visited) == (wanted.exit_block, wanted.early, wanted.visited)
            if not same or not np.allclose(got.probabilities, wanted.probabilities, atol=TOLERANCE):
                wrong.append(f"{turn}: {policy}")

    threads = [threading.Thread(target=work, args=(start,)) for start in range(0, 240, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    shallow, deep = (
        running.submit(model.parts, photos[0], Deadline(ms).bind(model.manifest)).result(WAIT_S) for ms in (0.01, 5000)
    )
    assert (shallow.exit_block[0], shallow.early[0]) == (model.manifest.exits[0].block, True)
    assert (deep.exit_block[0], deep.early[0]) == (12, False)
    running.close()
