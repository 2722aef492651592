"""Measure the energy of an image where the device has a meter: RAPL of x86, the power controller of a Raspberry Pi 5.

Meters resolve milliseconds at best, so that rows cannot share a round: each runs alone for some seconds.

No recorded run exists: no device of this project has had a readable meter, and the tests read made-up ones. Expect to
check the first figures from a real device.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from lraee.images.read import Pixels
from lraee_benchmarks.results.model import Energy
from lraee_benchmarks.running.rounds import Measure

SECONDS = 3.0
"""For each row, and for idling."""

_POLL_SECONDS = 0.2
"""Between two readings of a meter that gives power."""


class Meter(Protocol):
    """Something that knows how much energy the device has used."""

    source: str
    """As in `Energy.source`."""

    def joules(self) -> float:
        """Give the joules used since some moment in the past."""
        ...

    def close(self) -> None:
        """Stop reading the meter."""
        ...


class Rapl:
    """Counters of the CPU packages; they overflow at a value of their own.

    Source: Linux, Documentation/power/powercap/powercap.rst.
    """

    source = "RAPL"

    def __init__(self, folders: Sequence[Path]) -> None:
        """Read the counters for the first time.

        Args:
            folders: one for each package.
        """
        self._folders = folders
        self._last = [self._read(folder, "energy_uj") for folder in folders]
        self._total = 0

    def joules(self) -> float:
        """Add up the counters; ask at least once in each overflow, which takes minutes."""
        for index, folder in enumerate(self._folders):
            now = self._read(folder, "energy_uj")
            step = now - self._last[index]
            self._total += step if step >= 0 else step + self._read(folder, "max_energy_range_uj")
            self._last[index] = now
        return self._total / 1e6

    def close(self) -> None:
        """Do nothing, since nothing is open."""

    @staticmethod
    def _read(folder: Path, name: str) -> int:
        return int((folder / name).read_text(encoding="ascii"))


class Pmic:
    """The sum of all rails of which a Raspberry Pi 5 measures voltage and current, read by a thread now and then."""

    source = "PMIC"

    def __init__(self, read: Callable[[], str], *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the thread.

        Args:
            read: gives the text of ``vcgencmd pmic_read_adc``.
            clock: seconds.
        """
        self._read = read
        self._clock = clock
        self._joules = 0.0
        self._looked = clock()
        self._watts = pmic_watts(read())
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True, name="lraee-bench-energy")
        self._thread.start()

    def joules(self) -> float:
        """Add up to now; the power between two readings is taken as their mean."""
        with self._lock:
            watts, now = pmic_watts(self._read()), self._clock()
            self._joules += (self._watts + watts) / 2 * (now - self._looked)
            self._watts, self._looked = watts, now
            return self._joules

    def close(self) -> None:
        """End the thread that reads."""
        self._ended.set()
        self._thread.join()

    def _poll(self) -> None:
        while not self._ended.wait(_POLL_SECONDS):
            self.joules()


def pmic_watts(text: str) -> float:
    """Volts times amperes, summed over the rails that have both.

    >>> pmic_watts("VDD_CORE_A current(7)=1.50000000A\\nVDD_CORE_V volt(15)=0.80000000V\\nEXT5V_V volt(24)=5.1V\\n")
    1.2000000000000002
    """
    amperes = {name: float(value) for name, value in re.findall(r"(\w+)_A current\(\d+\)=([\d.]+)A", text)}
    volts = {name: float(value) for name, value in re.findall(r"(\w+)_V volt\(\d+\)=([\d.]+)V", text)}
    return sum(amperes[name] * volts[name] for name in amperes.keys() & volts.keys())


def find_meter(root: Path = Path("/")) -> Meter | None:
    """Find the device's meter; None where there is none, or only the administrator may read it."""
    packages = [
        folder
        for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*"))
        if folder.name.count(":") == 1 and _readable(folder)
    ]
    if packages:
        return Rapl(packages)
    tool = shutil.which("vcgencmd")
    if tool is None:
        return None

    def read() -> str:
        return subprocess.run([tool, "pmic_read_adc"], capture_output=True, text=True, check=False).stdout

    return Pmic(read) if pmic_watts(read()) > 0 else None


def has_meter() -> bool:
    """Say whether `find_meter` finds a meter."""
    meter = find_meter()
    if meter is not None:
        meter.close()
    return meter is not None


def measure_energy(
    rows: Mapping[str, Measure],
    batches: Sequence[Pixels],
    meter: Meter,
    *,
    seconds: float = SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Energy]:
    """Run each row alone.

    Args:
        rows: how to run each row on the batch of an index, by its name.
        batches: of equal size; taken in turn.
        meter: is read before and after.
        seconds: for each row.
        clock: seconds.
        sleep: waits for a number of seconds.
    """
    before, begun = meter.joules(), clock()
    sleep(seconds)
    idle_watts = (meter.joules() - before) / (clock() - begun)
    found = {}
    for name, measure in rows.items():
        before, begun, calls = meter.joules(), clock(), 0
        while clock() - begun < seconds:
            measure(calls % len(batches))
            calls += 1
        joules, elapsed = meter.joules() - before, clock() - begun
        found[name] = Energy(
            source=meter.source,
            joules_per_image=joules / (calls * len(batches[0])),
            watts=joules / elapsed,
            idle_watts=idle_watts,
        )
    return found


def _readable(folder: Path) -> bool:
    try:
        name = (folder / "name").read_text(encoding="ascii").strip()
        int((folder / "energy_uj").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return False
    return name.startswith("package")
