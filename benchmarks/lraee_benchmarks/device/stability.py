"""Watch whether anything disturbed the measurement: other processes, the hypervisor, clock, heat, drift.

A run next to a busy process gives numbers that cannot be repeated; here this is detected and reported.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee_benchmarks.device.text_files import text_of
from lraee_benchmarks.results.conditions import Stability

OTHERS_LIMIT = 0.03
"""Share of the cores' time; an idle machine's own services stay below."""

STEAL_LIMIT = 0.01

DRIFT_LIMIT = 0.05

LOOK_SECONDS = 1.0
"""Between two looks at the clock frequency."""

FIRMWARE = "sys/devices/platform/soc/soc:firmware/get_throttled"

THROTTLE_BITS = {0: "under-voltage", 1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
"""Bits of ``get_throttled`` that describe the present; 16 places higher are the same bits since boot.

Source: Raspberry Pi documentation, vcgencmd, get_throttled.
"""

_CLOCK = "sys/devices/system/cpu/cpu{core}/cpufreq/scaling_cur_freq"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    seconds: float
    own_seconds: float
    busy_seconds: float | None
    steal_seconds: float | None
    throttled: int


class StabilityWatch:
    """Looks at the system when it is made, when `look` is called, and at the end."""

    def __init__(self, *, root: Path = Path("/"), clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to watch.

        Args:
            root: where ``proc`` and ``sys`` are.
            clock: seconds.
        """
        self._root = root
        self._clock = clock
        self._cores = _cores()
        self._mhz: list[float] = []
        self._looked = -LOOK_SECONDS
        self._begin = self._read()
        self.look()

    def look(self) -> None:
        """Note the clock frequency, if the last look is long enough ago."""
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        text = text_of(self._root / _CLOCK.format(core=self._cores[0]))
        if text.isdigit():
            self._mhz.append(int(text) / 1000)

    def verdict(self, full_ms: NDArray[np.float64]) -> Stability:
        """Say what happened since the beginning; processes that were started must have been waited for.

        Args:
            full_ms: (rounds,) float64, the full chain's latencies in their order.
        """
        end = self._read()
        seconds = end.seconds - self._begin.seconds
        capacity = max(seconds * len(self._cores), 1e-9)
        others = steal = None
        if end.busy_seconds is not None and self._begin.busy_seconds is not None:
            busy = end.busy_seconds - self._begin.busy_seconds
            others = max(0.0, busy - (end.own_seconds - self._begin.own_seconds)) / capacity
        if end.steal_seconds is not None and self._begin.steal_seconds is not None:
            steal = max(0.0, end.steal_seconds - self._begin.steal_seconds) / capacity
        throttled = throttle_words(self._begin.throttled, end.throttled)
        drift = drift_of(full_ms)
        reasons = reasons_against(others=others, steal=steal, drift=drift, throttled=throttled)
        return Stability(
            stable=not reasons,
            reasons=reasons,
            seconds=seconds,
            others_share=others,
            steal_share=steal,
            drift=drift,
            lowest_mhz=min(self._mhz, default=None),
            highest_mhz=max(self._mhz, default=None),
            throttled=throttled,
        )

    def _read(self) -> _Reading:
        times = os.times()
        busy, steal = cpu_seconds(text_of(self._root / "proc/stat"), self._cores)
        return _Reading(
            seconds=self._clock(),
            own_seconds=times.user + times.system + times.children_user + times.children_system,
            busy_seconds=busy,
            steal_seconds=steal,
            throttled=read_throttled(self._root),
        )


def reasons_against(
    *, others: float | None, steal: float | None, drift: float | None, throttled: tuple[str, ...]
) -> tuple[str, ...]:
    """Say which limits were passed, one sentence each."""
    reasons = []
    if others is not None and others > OTHERS_LIMIT:
        reasons.append(f"other processes took {others:.0%} of the cores' time")
    if steal is not None and steal > STEAL_LIMIT:
        reasons.append(f"the hypervisor took {steal:.0%} of the cores' time")
    if drift is not None and abs(drift - 1) > DRIFT_LIMIT:
        reasons.append(f"full depth was {drift:.2f} times as slow in the last third of the rounds as in the first")
    if throttled:
        reasons.append(f"the firmware reports: {', '.join(throttled)}")
    return tuple(reasons)


def drift_of(full_ms: NDArray[np.float64]) -> float | None:
    """Median of the last third over that of the first; None with fewer than 30 samples.

    >>> drift_of(np.repeat([10.0, 10.0, 12.0], 10))
    1.2
    """
    third = len(full_ms) // 3
    return float(np.median(full_ms[-third:]) / np.median(full_ms[:third])) if third >= 10 else None


def cpu_seconds(stat: str, cores: tuple[int, ...]) -> tuple[float | None, float | None]:
    """Busy and stolen seconds of these cores since boot, from the text of ``/proc/stat``; None where it has none.

    Source: proc(5): user, nice, system, idle, iowait, irq, softirq, steal, in ticks; guest time is part of user.
    """
    ticks = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
    wanted = {f"cpu{core}" for core in cores}
    lines = [line.split() for line in stat.splitlines()]
    found = [[int(count) for count in line[1:9]] for line in lines if line and line[0] in wanted and len(line) > 8]
    if len(found) != len(wanted):
        return None, None
    return sum(sum(c[:3]) + c[5] + c[6] for c in found) / ticks, sum(c[7] for c in found) / ticks


def read_throttled(root: Path = Path("/")) -> int:
    """Read the firmware's bits; 0 on devices other than a Raspberry Pi."""
    text = text_of(root / FIRMWARE)
    if not text and root == Path("/") and (tool := shutil.which("vcgencmd")) is not None:
        done = subprocess.run([tool, "get_throttled"], capture_output=True, text=True, check=False)
        text = done.stdout.strip().removeprefix("throttled=")
    try:
        return int(text, 16) if text else 0
    except ValueError:
        return 0


def throttle_words(before: int, after: int) -> tuple[str, ...]:
    """Name what is so now, or has happened since `before` was read; bits since boot stay set.

    >>> throttle_words(0x50000, 0x50000), throttle_words(0x10000, 0x50004)
    ((), ('throttled',))
    """
    happened = (before | after) & 0xF | ((after & ~before) >> 16) & 0xF
    return tuple(word for bit, word in THROTTLE_BITS.items() if happened >> bit & 1)


def _cores() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
