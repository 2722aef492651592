"""Meters of energy, read from a made-up system: no machine of the project has a readable one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lraee_benchmarks.device.energy import Pmic, Rapl, find_meter, measure_energy

PACKAGE = "sys/class/powercap/intel-rapl:0"


class Clock:
    """Seconds that pass only when somebody waits or works."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def package(root: Path, micro_joules: int) -> Path:
    """A package's counter."""
    folder = root / PACKAGE
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text("package-0\n")
    (folder / "energy_uj").write_text(f"{micro_joules}\n")
    (folder / "max_energy_range_uj").write_text("1000000\n")
    return folder


def test_an_overflow_is_no_loss(tmp_path: Path) -> None:
    """From 0.9 J over 1 J to 0.2 J are 0.3 J."""
    folder = package(tmp_path, 900_000)
    meter = Rapl([folder])
    package(tmp_path, 200_000)
    assert meter.joules() == pytest.approx(0.3)
    package(tmp_path, 500_000)
    assert meter.joules() == pytest.approx(0.6)


def test_the_meter_of_packages_is_found(tmp_path: Path) -> None:
    """Not that of a core within, and not one that cannot be read."""
    assert find_meter(tmp_path) is None
    core = tmp_path / "sys/class/powercap/intel-rapl:0:0"
    core.mkdir(parents=True)
    assert find_meter(tmp_path) is None
    folder = package(tmp_path, 0)
    assert isinstance(find_meter(tmp_path), Rapl)
    (folder / "energy_uj").unlink()
    assert find_meter(tmp_path) is None


def test_rows_are_measured_one_by_one(tmp_path: Path) -> None:
    """A device that takes 2 W idle and 5 W at work; a call of two images takes 0.1 s."""
    clock = Clock()
    idle_end = 3.0

    class Meter:
        source = "RAPL"

        def joules(self) -> float:
            return 2 * min(clock.now, idle_end) + 5 * max(clock.now - idle_end, 0.0)

        def close(self) -> None: ...

    def call(batch: int) -> float:
        clock.sleep(0.1)
        return 100.0

    batches = [np.zeros((2, 2, 2, 3), np.uint8)] * 4
    (energy,) = measure_energy({"full": call}, batches, Meter(), seconds=3.0, clock=clock, sleep=clock.sleep).values()
    assert energy.idle_watts == pytest.approx(2.0)
    assert energy.watts == pytest.approx(5.0)
    assert energy.joules_per_image == pytest.approx(0.25)


def test_power_is_added_up_over_time() -> None:
    """1.2 W for two seconds, whatever the thread reads in between."""
    clock = Clock()
    meter = Pmic(lambda: "VDD_A current(7)=1.5A\nVDD_V volt(15)=0.8V\n", clock=clock)
    try:
        begun = meter.joules()
        clock.sleep(2.0)
        assert meter.joules() - begun == pytest.approx(2.4)
    finally:
        meter.close()
