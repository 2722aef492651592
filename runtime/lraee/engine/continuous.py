"""Continuous batching for a live service: images of many callers run in common batches, on one thread of their own.

The live counterpart of `lraee.engine.stream`: images come when they come, each with a route of its own, with labels of
its own, and perhaps with a deadline. No batch waits for images that may not come. After each batch, the next one is

1. the queue of an image with a deadline; else
2. the deepest queue that holds a full batch; else
3. the queue of the image that came first, if more than `max_lag` others have overtaken it, or if it has been here for
   longer than `max_wait_s`; else
4. new images, as many as there are, up to a batch; else
5. the shallowest queue that is not empty, so that its images join those of deeper queues.

Where there are no images but those of the batch that has just run, they go on without a queue.

Merging schedules have blocks of their own, so their images wait in queues of their own. The time of each part is noted
once for its batch, and routes with a deadline predict from these times: the time that an image waited is not among
them.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.checks import check_count
from lraee.engine.orchestrator import Answers, Tower
from lraee.engine.sized_tokens import Tokens
from lraee.engine.stations import Answered, Stations, Traveller, traveller
from lraee.errors import LraeeError, ServiceError, SettingsError
from lraee.policies.base import Route, is_anytime, schedule_of
from lraee.policies.part_costs import PartCosts, ReadCosts

LAG_IN_BATCHES = 4
"""How many batches of others may overtake an image, unless set otherwise."""


@dataclass(slots=True, eq=False)
class _Caller:
    """Waits for the answer of one image."""

    future: Future[Answers]
    since: float
    """When the image came, by `time.monotonic`."""


@dataclass(slots=True, eq=False)
class _Arrival:
    """Holds an image that no batch has taken yet."""

    image: Traveller
    pixels: NDArray[np.uint8] | Callable[[], NDArray[np.uint8]]
    schedule: str | None


class ContinuousBatching:
    """Answers images one by one and runs them in batches; any thread may submit."""

    def __init__(
        self,
        blocks: Callable[[str | None], Tower[Tokens]],
        *,
        batch_size: int = 8,
        max_lag: int | None = None,
        max_wait_s: float = math.inf,
        on_part: Callable[[str, int], None] | None = None,
    ) -> None:
        """Start the thread.

        Args:
            blocks: gives the tower whose stem and blocks run under a merging schedule, such as `Parts.under`.
            batch_size: images that run together at most.
            max_lag: how many images may overtake one that waits for a full batch; by default four batches.
            max_wait_s: seconds after which none may.
            on_part: called on the thread after each part with its name and the number of images it ran for.

        Raises:
            SettingsError: a number is not a whole number from 1 on, or `max_wait_s` is negative.
        """
        check_count("batch_size", batch_size, SettingsError)
        self._max_lag = LAG_IN_BATCHES * batch_size if max_lag is None else max_lag
        check_count("max_lag", self._max_lag, SettingsError)
        if not max_wait_s >= 0:
            raise SettingsError(f"max_wait_s is {max_wait_s!r}, wanted seconds, 0 or more")
        self._max_wait_s = max_wait_s
        self._blocks, self._batch_size, self._told = blocks, batch_size, on_part
        self._costs = PartCosts()
        self._stations: dict[str | None, Stations] = {}
        self._callers: dict[int, _Caller] = {}
        self._arrivals: deque[_Arrival] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._count = 0
        self._entered = 0
        self._began = 0.0
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="lraee-batches", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether images are accepted and answered."""
        return self._failure is None and not self._closing and self._thread.is_alive()

    @property
    def pending(self) -> int:
        """Images that have no answer yet."""
        return len(self._callers)

    def submit(
        self, tower: Tower[Tokens], pixels: NDArray[np.uint8] | Callable[[], NDArray[np.uint8]], route: Route
    ) -> Future[Answers]:
        """Accept one image.

        Args:
            tower: runs its exits and its tail, such as ``parts.with_labels(labels).for_route(route)``.
            pixels: (size, size, 3) uint8, as `lraee.images.preprocess.pixels` gives them, or what gives them: it is
                called on the thread of the batches, which saves handing the image over where no other is under way;
                its error is that of the answer.
            route: of this image alone, bound when its deadline begins to count.

        Returns:
            The answer as a batch of one. Cancelling it takes the image out of its queue.

        Raises:
            ServiceError: it was closed, or its thread has failed.
        """
        if is_anytime(route):
            route.lends(ReadCosts(self._costs))
        future: Future[Answers] = Future()
        with self._changed:
            if not self.is_alive:
                raise ServiceError(self._why())
            position = self._count
            self._count += 1
            self._callers[position] = _Caller(future, time.monotonic())
            self._arrivals.append(_Arrival(traveller(position, route, tower), pixels, schedule_of(route)))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Accept no more images, answer those that were accepted, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _why(self) -> str:
        if self._failure is not None:
            return f"the thread that answers images has failed: {self._failure}; start the program again"
        return "no more images are accepted, because the program is stopping; ask another one, or later"

    def _work(self) -> None:
        try:
            while (step := self._next()) is not None:
                images, run = step
                self._began = time.perf_counter()
                try:
                    answered = run()
                except Exception as error:  # of a part: these images have no answer, all others go on
                    self._fail((image.position for image in images), error)
                else:
                    self._deliver(answered)
        except BaseException as error:  # nobody would answer what waits
            self._failure = error
            with self._changed:
                self._arrivals.clear()
                waiting = list(self._callers)
            self._fail(waiting, ServiceError(self._why()))

    def _next(self) -> tuple[list[Traveller], Callable[[], Answered]] | None:
        """Choose the next batch; waits while there is none, and gives None when it was closed and all is answered."""
        with self._changed:
            while True:
                if self._callers and (step := self._chosen()) is not None:
                    return step
                if self._closing:
                    return None
                self._changed.wait()

    def _chosen(self) -> tuple[list[Traveller], Callable[[], Answered]] | None:
        self._forget_cancelled()
        if (queue := self._urgent() or self._full() or self._overtaken()) is not None:
            return self._from_queue(*queue)
        if self._arrivals:
            return self._from_arrivals()
        return None if (queue := self._shallowest()) is None else self._from_queue(*queue)

    def _from_queue(self, stations: Stations, block: int) -> tuple[list[Traveller], Callable[[], Answered]]:
        return list(stations.waiting[block])[: self._batch_size], lambda: stations.leave_for(block)

    def _from_arrivals(self) -> tuple[list[Traveller], Callable[[], Answered]]:
        """Take the image that came first, and others with its schedule, in their order."""
        schedule, taken = self._arrivals[0].schedule, list[_Arrival]()
        others: deque[_Arrival] = deque()
        while self._arrivals and len(taken) < self._batch_size:
            arrival = self._arrivals.popleft()
            (taken if arrival.schedule == schedule else others).append(arrival)
        self._arrivals.extendleft(reversed(others))
        self._entered = max(self._entered, taken[-1].image.position)
        return [one.image for one in taken], lambda: self._enter(taken, schedule)

    def _enter(self, arrivals: list[_Arrival], schedule: str | None) -> Answered:
        images, pixels = list[Traveller](), list[NDArray[np.uint8]]()
        for arrival in arrivals:
            try:
                pixels.append(arrival.pixels() if callable(arrival.pixels) else arrival.pixels)
            except Exception as error:  # of this image alone
                self._fail([arrival.image.position], error)
            else:
                images.append(arrival.image)
        self._began = time.perf_counter()
        return self._of(schedule).enter(images, pixels) if images else []

    def _of(self, schedule: str | None) -> Stations:
        if schedule not in self._stations:
            tower = self._blocks(schedule)
            self._stations[schedule] = Stations(
                tower, self._batch_size, self._noted, self._refuse, under_way=self._wanted
            )
        return self._stations[schedule]

    def _wanted(self) -> int:
        """Count the images whose callers still want an answer: one that was cancelled leaves at its next exit."""
        return sum(not caller.future.cancelled() for caller in list(self._callers.values()))

    def _urgent(self) -> tuple[Stations, int] | None:
        for stations in self._stations.values():
            for block, image in stations.travellers():
                if image.anytime is not None:
                    return stations, block
        return None

    def _full(self) -> tuple[Stations, int] | None:
        for stations in self._stations.values():
            if (block := stations.deepest_full()) is not None:
                return stations, block
        return None

    def _overtaken(self) -> tuple[Stations, int] | None:
        """Find the image that came first of those that wait, if it has waited too long."""
        first, queue = self._count, None
        for stations in self._stations.values():
            for block, image in stations.travellers():
                if image.position < first:
                    first, queue = image.position, (stations, block)
        if queue is None or first < self._entered - self._max_lag:
            return queue
        caller = self._callers.get(first)  # None: it has failed, where memory ran out while it was put into its queue
        return queue if caller is None or time.monotonic() - caller.since > self._max_wait_s else None

    def _shallowest(self) -> tuple[Stations, int] | None:
        for stations in self._stations.values():
            if (block := stations.shallowest()) is not None:
                return stations, block
        return None

    def _forget_cancelled(self) -> None:
        """Take images out of their queues whose callers no longer want an answer."""
        gone = {position for position, caller in self._callers.items() if caller.future.cancelled()}
        if not gone:
            return
        for position in gone:
            del self._callers[position]
        for stations in self._stations.values():
            stations.forget(gone)
        self._arrivals = deque(one for one in self._arrivals if one.image.position not in gone)

    def _noted(self, part: str, images: int) -> None:
        now = time.perf_counter()
        self._costs.note(part, images, now - self._began)
        self._began = now
        if self._told is not None:
            self._told(part, images)

    def _deliver(self, answered: Answered) -> None:
        for position, answer in answered:
            caller = self._callers.pop(position, None)  # None: it has failed, where memory ran out meanwhile
            if caller is not None and caller.future.set_running_or_notify_cancel():
                caller.future.set_result(answer)

    def _refuse(self, position: int, error: LraeeError) -> None:
        self._fail([position], error)

    def _fail(self, positions: Iterable[int], error: Exception) -> None:
        for position in positions:
            caller = self._callers.pop(position, None)
            if caller is not None and caller.future.set_running_or_notify_cancel():
                caller.future.set_exception(error)
