"""Whether a device was left alone: accounting of cores, firmware bits, drift, and a real busy process."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from lraee_benchmarks.device.stability import (
    FIRMWARE,
    StabilityWatch,
    cpu_seconds,
    drift_of,
    read_throttled,
    reasons_against,
    throttle_words,
)

STAT = """cpu  400 0 0 0 0 0 0 0 0 0
cpu0 100 10 20 500 30 1 2 40 60 0
cpu1 200 0 0 0 0 0 0 0 0 0
intr 1
"""


def test_busy_time_is_that_of_the_cores_in_use() -> None:
    """Idle and waiting are not busy, guests are part of user time, and stolen time stands apart."""
    ticks = os.sysconf("SC_CLK_TCK")
    assert cpu_seconds(STAT, (0,)) == (133 / ticks, 40 / ticks)
    assert cpu_seconds(STAT, (0, 1)) == (333 / ticks, 40 / ticks)
    assert cpu_seconds(STAT, (0, 7)) == (None, None)
    assert cpu_seconds("", (0,)) == (None, None)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (0x0, 0x0, ()),
        (0x50000, 0x50000, ()),
        (0x0, 0x40000, ("throttled",)),
        (0x0, 0x10001, ("under-voltage",)),
        (0x2, 0x20000, ("frequency capped",)),
        (0x80000, 0x80008, ("soft temperature limit",)),
    ],
)
def test_firmware_bits_count_if_they_are_of_this_run(before: int, after: int, words: tuple[str, ...]) -> None:
    """What happened since boot, but before the measurement, does not."""
    assert throttle_words(before, after) == words


def test_firmware_bits_are_read_where_a_raspberry_pi_has_them(tmp_path: Path) -> None:
    """Hexadecimal; 0 elsewhere and where the file makes no sense."""
    assert read_throttled(tmp_path) == 0
    file = tmp_path / FIRMWARE
    file.parent.mkdir(parents=True)
    file.write_text("50005\n")
    assert read_throttled(tmp_path) == 0x50005
    file.write_text("warm\n")
    assert read_throttled(tmp_path) == 0


def test_drift_needs_enough_rounds() -> None:
    """Ten in each third."""
    assert drift_of(np.ones(29)) is None
    assert drift_of(np.repeat([10.0, 1.0, 9.0], 10)) == 0.9


def test_each_limit_has_its_sentence() -> None:
    """And none is given below."""
    assert reasons_against(others=0.02, steal=0.005, drift=1.04, throttled=()) == ()
    found = reasons_against(others=0.2, steal=0.02, drift=0.8, throttled=("throttled",))
    assert [reason.split()[0] for reason in found] == ["other", "the", "full", "the"]
    assert reasons_against(others=None, steal=None, drift=None, throttled=()) == ()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the system does not tell")
def test_a_run_beside_a_busy_process_is_unstable() -> None:
    """A process that only counts, for a second."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            watch = StabilityWatch()
            time.sleep(1.0)
            verdict = watch.verdict(np.ones(30))
        finally:
            busy.kill()
    assert not verdict.stable
    assert verdict.others_share is not None
    assert verdict.others_share > 0.1
    assert "other processes" in verdict.reasons[0]


def test_own_work_is_not_that_of_others(tmp_path: Path) -> None:
    """Cores are busy for as long as this process worked: nobody else did."""
    stat = tmp_path / "proc" / "stat"
    stat.parent.mkdir()
    cores = sorted(os.sched_getaffinity(0))
    ticks = os.sysconf("SC_CLK_TCK")

    def write(busy: float) -> None:
        lines = [f"cpu{core} {round(busy * ticks) if core == cores[0] else 0} 0 0 0 0 0 0 0 0 0" for core in cores]
        stat.write_text("\n".join(lines))

    write(0.0)
    watch = StabilityWatch(root=tmp_path)
    before, begun = time.process_time(), time.monotonic()
    while time.process_time() - before < 0.3:
        pass
    write(time.process_time() - before)
    verdict = watch.verdict(np.ones(30))
    assert verdict.others_share == pytest.approx(0.0, abs=0.05 / max(time.monotonic() - begun, 0.3))


def test_a_watch_adds_up_what_a_system_tells(tmp_path: Path) -> None:
    """Ten seconds of a clock of its own: shares are of all cores, the clock frequency is looked at once a second."""
    cores = sorted(os.sched_getaffinity(0))
    ticks = os.sysconf("SC_CLK_TCK")
    stat, clock = tmp_path / "proc" / "stat", tmp_path / f"sys/devices/system/cpu/cpu{cores[0]}/cpufreq"
    for folder in (stat.parent, clock):
        folder.mkdir(parents=True)
    now = [0.5]

    def write(busy: float, stolen: float, mhz: int) -> None:
        """Seconds of each core, and its frequency."""
        lines = [f"cpu{core} {round(busy * ticks)} 0 0 0 0 0 0 {round(stolen * ticks)} 0 0" for core in cores]
        stat.write_text("\n".join(lines))
        (clock / "scaling_cur_freq").write_text(f"{mhz * 1000}\n")

    write(100.0, 50.0, 1500)
    watch = StabilityWatch(root=tmp_path, clock=lambda: now[0])
    for now[0], mhz in ((1.0, 100), (1.5, 600), (2.0, 9000), (2.5, 1800)):
        write(100.0, 50.0, mhz)
        watch.look()
    now[0] = 10.5
    write(105.0, 51.0, 1500)
    verdict = watch.verdict(np.ones(30))
    assert verdict.seconds == 10.0
    assert verdict.steal_share == pytest.approx(0.1)
    assert verdict.others_share == pytest.approx(0.5, abs=0.1)  # less what this test itself took
    assert (verdict.lowest_mhz, verdict.highest_mhz) == (600.0, 1800.0)
    assert not verdict.stable
    assert len(verdict.reasons) == 2


def test_a_quiet_watch_is_stable_and_never_tells_less_than_nothing(tmp_path: Path) -> None:
    """Counters of whole ticks may stand still while this process works."""
    stat = tmp_path / "proc" / "stat"
    stat.parent.mkdir()
    stat.write_text("\n".join(f"cpu{core} 1 0 0 0 0 0 0 0 0 0" for core in os.sched_getaffinity(0)))
    watch = StabilityWatch(root=tmp_path)
    begun = sum(os.times()[:2])
    while sum(os.times()[:2]) < begun + 0.05:
        pass
    verdict = watch.verdict(np.ones(30))
    assert (verdict.others_share, verdict.steal_share) == (0.0, 0.0)
    assert verdict.stable


def test_work_of_a_process_that_was_started_is_not_that_of_others(tmp_path: Path) -> None:
    """Once it has been waited for."""
    stat = tmp_path / "proc" / "stat"
    stat.parent.mkdir()
    cores, ticks = sorted(os.sched_getaffinity(0)), os.sysconf("SC_CLK_TCK")
    now = [0.0]

    def write(busy: float) -> None:
        lines = [f"cpu{core} {round(busy * ticks) if core == cores[0] else 0} 0 0 0 0 0 0 0 0 0" for core in cores]
        stat.write_text("\n".join(lines))

    write(0.0)
    watch = StabilityWatch(root=tmp_path, clock=lambda: now[0])
    before = os.times()
    work = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    after = os.times()
    write(after.children_user + after.children_system - before.children_user - before.children_system)
    now[0] = 1.0
    assert watch.verdict(np.ones(30)).others_share == pytest.approx(0.0, abs=0.03)
