"""Load a service at rates below, at and above what it can answer, and see whether it keeps its promises.

    python benchmarks/experiments/service/soak.py BUNDLE [--seconds 600] [--json F]

The service and this program have cores of their own. It first finds how many requests can be answered in a second with
16 under way all the time, the capacity, and then sends requests at random times, at a tenth of it, at the capacity and
at twice the capacity, for the bundle's own operating point and at full depth. Meanwhile it watches memory. Then come
odd requests (`odd_requests.py`) next to ordinary ones, and at last a stop under load.

Exit status 1 when a bound of `BOUNDS` does not hold; with --safety, only those that do not depend on speed count.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from load import Client, Outcome, closed_load, open_load
from odd_requests import send_many
from process import Service, serving
from turns import TURNS, in_turns

import lraee
from lraee.bundle.strict_json import encode
from lraee.images.read import read_image
from lraee_benchmarks.device.description import describe_device
from lraee_benchmarks.images import open_source

UNDER_WAY = 16
"""Requests under way while the capacity is measured."""

SHARES = {"low": 0.1, "at": 1.0, "above": 2.0}
"""Rates as shares of the capacity."""

POLICIES = ("", "full")
"""The bundle's own operating point, and full depth."""

BOUNDS = {
    "p99_above_ms": "p99 of accepted requests at twice the capacity, below the time limit",
    "memory_growth_mb": "growth of memory from the second to the last tenth of that time, at most 16 MB",
    "lost_at_stop": "accepted requests without a whole answer when it was stopped under load, none",
    "faults": "answers of 500 or more other than 503, none",
    "files_left": "files and sockets left open after odd requests, none",
    "adaptive_gain": "requests answered at the operating point for one at full depth, at least 1.5",
    "added_ms": "median time added to the library's own for the same image at a tenth of the capacity, at most 2 ms",
}
"""What must hold."""

SPEEDS = frozenset({"p99_above_ms", "adaptive_gain", "added_ms"})
"""Bounds that a busy machine breaks."""

MOST_GROWTH_MB, LEAST_GAIN, MOST_ADDED_MS = 16.0, 1.5, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """What happened at one rate."""

    policy: str
    """As given to the service; empty for its default."""
    name: str
    asked_per_s: float
    """Rate of requests; 0 where as many as possible were under way."""
    seconds: float
    answered_per_s: float
    statuses: dict[str, int]
    p50_ms: float | None
    """Of the accepted requests, those whose time ran out among them."""
    p99_ms: float | None
    most_ms: float | None
    lost: int
    refused: int
    rss_mb: tuple[float, ...] = field(default=())
    """Memory of the service, about once a second."""


def bodies(bundle: str, source: str, count: int) -> list[bytes]:
    """Encode images as JPEG, of at least the size that the model wants."""
    from PIL import Image

    size = lraee.load(bundle).manifest.preprocessing.image_size
    dataset = open_source(source)
    made = []
    for index in np.linspace(0, len(dataset) - 1, count).astype(int):
        picture = Image.fromarray(read_image(dataset.read_bytes(int(index))))
        if min(picture.size) < size:
            scale = size / min(picture.size)
            picture = picture.resize(
                (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BICUBIC
            )
        picture.thumbnail((640, 640))
        encoded = io.BytesIO()
        picture.save(encoded, "jpeg", quality=90)
        made.append(encoded.getvalue())
    return made


def phase_of(policy: str, name: str, asked: float, outcome: Outcome, rss: Sequence[float] = ()) -> Phase:
    """Sum up one phase."""
    latencies = np.array(outcome.latencies_ms + outcome.late_ms)
    p50, p99, most = (float(np.quantile(latencies, at)) for at in (0.5, 0.99, 1.0)) if len(latencies) else [None] * 3
    return Phase(
        policy=policy,
        name=name,
        asked_per_s=asked,
        seconds=outcome.seconds,
        answered_per_s=outcome.answered_per_s,
        statuses={str(status): count for status, count in sorted(outcome.statuses.items())},
        p50_ms=p50,
        p99_ms=p99,
        most_ms=most,
        lost=outcome.lost,
        refused=outcome.refused,
        rss_mb=tuple(rss),
    )


class Soak:
    """The measurement of one bundle."""

    def __init__(self, given: argparse.Namespace) -> None:
        """Prepare the images."""
        self.given = given
        self.images = bodies(given.bundle, given.images, given.image_count)
        self.phases: list[Phase] = []
        self.capacity: dict[str, float] = {}
        self.bounds: dict[str, float] = {}
        self.library_p50_ms: float | None = None
        self.odd: dict[str, int] = {}
        self.faults = 0

    def run(self) -> None:
        """Run all phases; the service is started once for each policy."""
        for policy in POLICIES:
            limits = ["--time-limit", str(self.given.time_limit), "--body-time", str(self.given.body_time)]
            options = [*limits, *(["--policy", policy] if policy else [])]
            with serving(self.given.bundle, self.given.service_cores, *options) as service:
                asyncio.run(self._policy(policy, service))
        own, full = (self._phase(policy, "above") for policy in POLICIES)
        self.bounds["adaptive_gain"] = own.answered_per_s / full.answered_per_s if full.answered_per_s else 0.0
        self.bounds["faults"] = float(self.faults)

    async def _policy(self, policy: str, service: Service) -> None:
        seconds = self.given.seconds
        await self._loaded(policy, "warm-up", service, 0.0, min(seconds / 10, 10))
        found = await self._loaded(policy, "capacity", service, 0.0, max(seconds / 20, 2))
        self.capacity[policy] = found.answered_per_s
        for name, share in SHARES.items():
            if policy and name != "above":
                continue
            length = seconds if name == "above" and not policy else seconds / 5
            per_second = share * self.capacity[policy]
            if name == "low":
                await self._low(service, per_second, length)
            else:
                await self._loaded(policy, name, service, per_second, length)
        if policy:
            return
        above = self._phase(policy, "above")
        self.bounds["p99_above_ms"] = above.p99_ms if above.p99_ms is not None else float("inf")
        tenth = max(len(above.rss_mb) // 10, 1)
        early, late = above.rss_mb[tenth : 2 * tenth] or above.rss_mb[:1], above.rss_mb[-tenth:]
        self.bounds["memory_growth_mb"] = float(np.mean(late) - np.mean(early))
        await self._odd(service)
        await self._stop(service)

    async def _loaded(self, policy: str, name: str, service: Service, per_second: float, seconds: float) -> Phase:
        client = Client(service.port, "/v1/classify", self.images)
        load = open_load(client, per_second, seconds) if per_second else closed_load(client, UNDER_WAY, seconds)
        running, rss = asyncio.ensure_future(load), [service.rss_mb()]
        while not running.done():
            await asyncio.wait([running], timeout=1.0)
            rss.append(service.rss_mb())
        client.close()
        return self._noted(phase_of(policy, name, per_second, running.result(), rss))

    def _noted(self, phase: Phase) -> Phase:
        self.faults += sum(count for status, count in phase.statuses.items() if int(status) >= 500 and status != "503")
        self.phases.append(phase)
        p99 = "none answered" if phase.p99_ms is None else f"p50 {phase.p50_ms:.1f} ms, p99 {phase.p99_ms:.1f} ms"
        print(
            f"{phase.policy or 'default':8} {phase.name:9} asked {phase.asked_per_s:7.1f}/s, "
            f"answered {phase.answered_per_s:7.1f}/s, {p99}, {phase.statuses}, {phase.rss_mb[-1]:.0f} MB",
            flush=True,
        )
        return phase

    def _phase(self, policy: str, name: str) -> Phase:
        return next(phase for phase in self.phases if (phase.policy, phase.name) == (policy, name))

    async def _low(self, service: Service, per_second: float, seconds: float) -> None:
        """Send few requests, in turns with calls of the library on the same core at the same rate."""
        cores = self.given.service_cores
        turns = await in_turns(service, self.given.bundle, cores, self.images, per_second, seconds)
        self._noted(phase_of("", "low", per_second, turns.served, turns.rss_mb))
        if turns.added_ms:
            self.bounds["added_ms"] = float(np.median(turns.added_ms))
        self.library_p50_ms = float(np.median(turns.alone_ms))
        print(f"library alone: p50 {self.library_p50_ms:.1f} ms over {len(turns.alone_ms):,} calls", flush=True)

    async def _odd(self, service: Service) -> None:
        """Send odd requests next to ordinary ones; what they open must be closed afterwards."""
        await asyncio.sleep(1)  # until it has seen that earlier connections are closed
        before = service.open_files()
        client = Client(service.port, "/v1/classify", self.images)
        ordinary = asyncio.ensure_future(open_load(client, 0.2 * self.capacity[""], max(self.given.odd / 500, 2)))
        statuses = await send_many(service.port, self.given.odd, self.images[:4])
        outcome = await ordinary
        client.close()
        self.odd = {str(status): count for status, count in sorted(statuses.items())}
        self.faults += sum(count for status, count in statuses.items() if status >= 500 and status != 503)
        self.faults += outcome.lost
        end = time.monotonic() + 30
        while service.open_files() > before and time.monotonic() < end:
            await asyncio.sleep(0.5)
        self.bounds["files_left"] = float(max(service.open_files() - before, 0))
        print(f"odd requests: {self.odd}, {service.open_files()} files open, {before} before", flush=True)

    async def _stop(self, service: Service) -> None:
        """Stop it under load: what its log says it answered must have arrived."""
        logged_before = service.logged()[200]
        client = Client(service.port, "/v1/classify", self.images)
        load = asyncio.ensure_future(open_load(client, 2 * self.capacity[""], 4.0))
        await asyncio.sleep(2.0)
        service.signal_stop()
        outcome = await load
        status = await asyncio.to_thread(service.process.wait, 60)
        answered = service.logged()[200] - logged_before
        self.bounds["lost_at_stop"] = float(outcome.lost + abs(answered - outcome.statuses[200]) + (status != 0))
        print(f"stop under load: status {status}, answered {answered}, received {outcome.statuses[200]}", flush=True)

    def holds(self) -> dict[str, bool]:
        """Whether each bound holds."""
        found = self.bounds
        return {
            "p99_above_ms": found["p99_above_ms"] <= 1000 * self.given.time_limit,
            "memory_growth_mb": found["memory_growth_mb"] <= MOST_GROWTH_MB,
            "lost_at_stop": found["lost_at_stop"] == 0,
            "faults": found["faults"] == 0,
            "files_left": found["files_left"] == 0,
            "adaptive_gain": found["adaptive_gain"] >= LEAST_GAIN,
            "added_ms": found.get("added_ms", float("inf")) <= MOST_ADDED_MS,
        }


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--seconds", type=float, default=600.0, help="at twice the capacity (default: %(default)s)")
    parser.add_argument("--time-limit", type=float, default=1.0, help="of the service (default: %(default)s s)")
    parser.add_argument("--body-time", type=float, default=5.0, help="of the service (default: %(default)s s)")
    parser.add_argument("--images", default="fashion-mnist", help="images to send, as lraee-bench takes them")
    parser.add_argument("--image-count", type=int, default=64, help="different images (default: %(default)s)")
    parser.add_argument("--odd", type=int, default=10_000, help="odd requests (default: %(default)s)")
    parser.add_argument("--service-cores", help="such as 0 or 0,1; by default all usable cores but the last")
    parser.add_argument("--client-core", type=int, help="by default the last usable core")
    parser.add_argument("--safety", action="store_true", help="let bounds on speed not decide the exit status")
    parser.add_argument("--json", type=Path, help="write the record")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    given.client_core = cores[-1] if given.client_core is None else given.client_core
    given.service_cores = (
        set(cores[:-1] or cores)
        if given.service_cores is None
        else {int(core) for core in given.service_cores.split(",")}
    )
    return given


def main() -> int:
    """Measure, print, and write the record; gives the exit status."""
    given = parsed()
    device = encode(describe_device())
    os.sched_setaffinity(0, {given.client_core})
    soak = Soak(given)
    soak.run()
    holds = soak.holds()
    for name, words in BOUNDS.items():
        value = soak.bounds.get(name, float("nan"))
        print(f"{'holds' if holds[name] else 'FAILS'}: {name} {value:.2f} ({words})")
    if given.json is not None:
        record: dict[str, Any] = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": f"python benchmarks/experiments/service/soak.py {shlex.join(sys.argv[1:])}",
            "device": device,
            "bundle": Path(given.bundle).stem,
            "service_cores": sorted(given.service_cores),
            "client_core": given.client_core,
            "time_limit_s": given.time_limit,
            "library_p50_ms": soak.library_p50_ms,
            "turns": TURNS,
            "capacity_per_s": {policy or "default": value for policy, value in soak.capacity.items()},
            "phases": [asdict(phase) for phase in soak.phases],
            "odd_requests": soak.odd,
            "bounds": soak.bounds,
            "holds": holds,
        }
        given.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    deciding = holds.keys() - (SPEEDS if given.safety else frozenset())
    return int(not all(holds[name] for name in deciding))


if __name__ == "__main__":
    sys.exit(main())
