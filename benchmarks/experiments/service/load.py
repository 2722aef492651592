"""Sends requests to a service at times of its own choosing, whether earlier ones were answered or not.

Arrivals are a Poisson process, as those of many people who know nothing of each other. A request counts from when it
should have been sent, so that a server that holds up its clients is not flattered (Gil Tene calls the opposite
coordinated omission). Standard library alone, since a client that computes much would take the server's time.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

REFUSED_PAUSE_S = 0.05
"""Pause of `closed_load` after a request that was refused: to refuse takes time as well."""

TIMER_S = 0.002
"""How late timers of an event loop may ring; the last moments before a request are waited for without one, so that
their error does not count as the service's latency."""

GIVE_UP_S = 60.0
"""Seconds after which an answer is taken for lost."""


@dataclass(slots=True)
class Outcome:
    """What became of the requests of one phase."""

    seconds: float = 0.0
    """From the first request to the last answer."""
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    """Of answers with status 200, in the order of their coming."""
    numbers: list[int] = field(default_factory=list)
    """Which request each of `latencies_ms` belongs to; `Client.send` chooses its image by it."""
    late_ms: list[float] = field(default_factory=list)
    """Of answers with status 503: the request was accepted, and its time ran out."""
    lost: int = 0
    """Requests whose answer began and did not end, or did not come for `GIVE_UP_S`."""
    refused: int = 0
    """Connections that were refused or closed before anything was answered."""

    @property
    def answered_per_s(self) -> float:
        """Answers with status 200 in a second."""
        return self.statuses[200] / self.seconds if self.seconds else 0.0


class Client:
    """Keeps connections to one service, and opens as many as are needed."""

    def __init__(self, port: int, path: str, bodies: Sequence[bytes]) -> None:
        """Prepare the requests.

        Args:
            port: of the service on loopback.
            path: to send images to.
            bodies: images, which are sent in turn.
        """
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: "
        self._requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, number: int, due: float, outcome: Outcome) -> int:
        """Send one request and note what came back; gives its status, or 0 where there was none.

        Args:
            number: which, for the choice of the image.
            due: when it should be sent, by `time.perf_counter`.
            outcome: to note it in.
        """
        request = self._requests[number % len(self._requests)]
        try:
            async with asyncio.timeout(GIVE_UP_S):
                status = await self._exchange(request)
        except (asyncio.IncompleteReadError, TimeoutError):
            outcome.lost += 1
            return 0
        except OSError:
            outcome.refused += 1
            return 0
        outcome.statuses[status] += 1
        if status == 200:
            outcome.latencies_ms.append(1000 * (time.perf_counter() - due))
            outcome.numbers.append(number)
        elif status == 503:
            outcome.late_ms.append(1000 * (time.perf_counter() - due))
        return status

    def close(self) -> None:
        """Close all connections."""
        for _, writer in self._idle:
            writer.close()
        self._idle = []

    async def _exchange(self, request: bytes) -> int:
        while True:
            is_kept = bool(self._idle)
            reader, writer = self._idle.pop() if is_kept else await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
            except (OSError, asyncio.IncompleteReadError) as error:
                writer.close()
                if is_kept and not getattr(error, "partial", b""):
                    continue  # the service had closed a connection that was idle: HTTP lets it
                if isinstance(error, asyncio.IncompleteReadError) and not error.partial:
                    raise ConnectionError from error
                raise
            try:
                lines = head.lower().split(b"\r\n")
                (length,) = (int(line[15:]) for line in lines if line.startswith(b"content-length:"))
                await reader.readexactly(length)
            except BaseException:
                writer.close()
                raise
            if b"connection: close" in lines:
                writer.close()
            else:
                self._idle.append((reader, writer))
            return int(head[9:12])


async def open_load(client: Client, per_second: float, seconds: float, seed: int = 0) -> Outcome:
    """Send requests at random times, at some rate, and wait for all answers."""
    draw, outcome, tasks = random.Random(seed), Outcome(), set[asyncio.Task[int]]()
    began = due = time.perf_counter()
    number = 0
    while (due := due + draw.expovariate(per_second)) < began + seconds:
        if (early := due - time.perf_counter() - TIMER_S) > 0:
            await asyncio.sleep(early)
        while time.perf_counter() < due:
            await asyncio.sleep(0)  # the core is this program's own, and what comes meanwhile is read
        task = asyncio.create_task(client.send(number, due, outcome))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        number += 1
    if tasks:
        await asyncio.wait(tasks)
    outcome.seconds = time.perf_counter() - began
    return outcome


async def closed_load(client: Client, at_a_time: int, seconds: float) -> Outcome:
    """Keep some requests under way all the time, which finds how many can be answered in a second."""
    outcome, began = Outcome(), time.perf_counter()

    async def one(start: int) -> None:
        number = start
        while (now := time.perf_counter()) < began + seconds:
            if await client.send(number, now, outcome) != 200:
                await asyncio.sleep(REFUSED_PAUSE_S)
            number += at_a_time

    await asyncio.gather(*map(one, range(at_a_time)))
    outcome.seconds = time.perf_counter() - began
    return outcome
