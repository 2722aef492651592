"""What is read from /proc and /sys, and what happens where it is missing."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from lraee_benchmarks.device import memory
from lraee_benchmarks.device.description import describe_device, device_model, int8_features
from lraee_benchmarks.device.memory import kilobytes_by_key, measure_memory


def test_a_board_is_called_by_its_name_rather_than_by_its_cpu() -> None:
    """The device tree ends its strings with a zero byte."""
    assert device_model("Raspberry Pi 4 Model B Rev 1.5\0", "model name : Cortex-A72\n").endswith("Rev 1.5")


def test_a_machine_that_tells_nothing_is_called_by_its_architecture() -> None:
    """A container may hide both files."""
    assert device_model("", "") in {platform.processor(), platform.machine()}


@pytest.mark.parametrize(
    ("flags", "features"),
    [
        ({"fpu", "avx2"}, ()),
        ({"avx512_vnni", "amx_int8", "avx_vnni"}, ("AVX-VNNI", "AVX512-VNNI", "AMX-INT8")),
        ({"asimd", "asimddp", "i8mm"}, ("dotprod", "i8mm")),
        ({"asimd", "crc32"}, ()),
    ],
    ids=["old x86", "new x86", "new ARM", "Pi 4"],
)
def test_int8_features_have_the_names_people_use(flags: set[str], features: tuple[str, ...]) -> None:
    """The kernel's names differ between architectures."""
    assert int8_features(frozenset(flags)) == features


def test_device_states_all_versions() -> None:
    """A number belongs to the versions it was measured with."""
    device = describe_device()
    assert device.cores >= 1
    assert all((device.model, device.machine, device.python, device.numpy, device.onnxruntime, device.lraee))
    assert device.celsius_after is None


def test_lines_of_proc_are_bytes(tmp_path: Path) -> None:
    """Lines of another form are stepped over, and a missing file is empty."""
    path = tmp_path / "status"
    path.write_text("Name:\tpython\nVmHWM:\t   12 kB\nThreads:\t4\n00400000-00452000 r-xp\nVmRSS:\t 8 kB\n")
    assert kilobytes_by_key(str(path)) == {"VmHWM": 12288, "VmRSS": 8192}
    assert kilobytes_by_key(str(tmp_path / "missing")) == {}


def test_memory_grows_by_what_is_held() -> None:
    """32 MB more are seen in all three numbers."""
    before = measure_memory()
    block = bytearray(b"x") * (32 << 20)
    after = measure_memory()
    assert len(block) == 32 << 20
    assert after.rss_bytes - before.rss_bytes > 24 << 20
    assert after.peak_rss_bytes >= after.rss_bytes - (1 << 20)
    assert after.private_bytes is None or after.private_bytes <= after.rss_bytes + (1 << 20)


def test_without_proc_the_peak_is_still_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.setattr(memory, "kilobytes_by_key", lambda path: {})
    found = measure_memory()
    assert found.peak_rss_bytes > 10 << 20
    assert found.private_bytes is None
