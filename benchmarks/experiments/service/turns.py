"""Finds what a service adds to the library's own time, image by image, in turns on the same cores.

The median over all requests less the median over all calls would not do: images leave at a few exits, so that latencies
have gaps, and where the median falls into one, the two medians can lie on different sides of it. Turns, because a
shared machine is faster at one moment than at another.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from load import Client, Outcome, open_load
from process import Service

TURNS = 6
"""Of the service, and as many of the library."""


@dataclass(slots=True)
class Turns:
    """What came of all turns."""

    served: Outcome = field(default_factory=Outcome)
    """Of the requests."""
    rss_mb: list[float] = field(default_factory=list)
    """Memory of the service after each turn."""
    alone_ms: list[float] = field(default_factory=list)
    """Latencies of the library; the first is that of the first image, and so on, again and again."""
    added_ms: list[float] = field(default_factory=list)
    """Latency of each answer less the library's median for the same image."""


async def in_turns(
    service: Service, bundle: str, cores: set[int], images: Sequence[bytes], per_second: float, seconds: float
) -> Turns:
    """Send requests to a service, in turns with calls of the library.

    Args:
        service: that runs on `cores`.
        bundle: that it serves.
        cores: the library runs there too.
        images: to send, one after the other.
        per_second: rate of requests, and of calls.
        seconds: of requests in all; calls take half of it, or as long as two rounds of the images need.
    """
    client, turns = Client(service.port, "/v1/classify", images), Turns()
    alone_s = max(seconds / 2, 2 * len(images) / per_second)
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(images):
            (Path(folder) / f"{number:05d}.jpg").write_bytes(image)
        for turn in range(TURNS):
            _add(turns.served, await open_load(client, per_second, seconds / TURNS, seed=turn))
            turns.rss_mb.append(service.rss_mb())
            first = str(len(turns.alone_ms))
            options = ("--per-second", str(per_second), "--seconds", str(alone_s / TURNS), "--first", first)
            turns.alone_ms += await asyncio.to_thread(_library, bundle, folder, cores, options)
    client.close()
    count = len(images)
    medians = [float(np.median(turns.alone_ms[image::count])) for image in range(min(count, len(turns.alone_ms)))]
    for latency, number in zip(turns.served.latencies_ms, turns.served.numbers, strict=True):
        if number % count < len(medians):
            turns.added_ms.append(latency - medians[number % count])
    return turns


def _add(whole: Outcome, one: Outcome) -> None:
    whole.seconds += one.seconds
    whole.statuses += one.statuses
    whole.latencies_ms += one.latencies_ms
    whole.numbers += one.numbers
    whole.late_ms += one.late_ms
    whole.lost += one.lost
    whole.refused += one.refused


def _library(bundle: str, folder: str, cores: set[int], options: Sequence[str]) -> list[float]:
    """Latencies of `Model.classify` with the gaps that such requests have, in milliseconds."""
    script = str(Path(__file__).with_name("library.py"))
    words = ["taskset", "--cpu-list", ",".join(map(str, sorted(cores))), sys.executable, script, bundle, folder]
    done = subprocess.run([*words, *options], capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found
