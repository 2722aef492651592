"""What the CPU is said to be able to do, from the kernel's own lists."""

from __future__ import annotations

import os
import platform
import sys

import pytest

from lraee.ort import cpu

PAGE_SIZE = 6
"""AT_PAGESZ of linux/auxvec.h."""


@pytest.mark.parametrize(
    ("hwcap", "hwcap2", "features"),
    [
        (0x8FB, 0, {"asimd"}),
        (0x119FFB, 0, {"asimd", "asimddp"}),
        (0x119FFB, 1 << 13, {"asimd", "asimddp", "i8mm"}),
        (0x119FFB | 1 << 22, 1 << 13, {"asimd", "asimddp", "i8mm", "sve"}),
        (0, 0, set()),
    ],
    ids=["Cortex-A72", "Cortex-A76", "with i8mm", "with SVE", "nothing"],
)
def test_features_of_arm_are_read_from_the_bits_of_hwcap(hwcap: int, hwcap2: int, features: set[str]) -> None:
    """The first two are what qemu gives for these cores."""
    assert cpu.arm64_features(hwcap, hwcap2) == features


def test_on_arm_the_kernel_is_asked_and_not_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under qemu the file is that of the machine around it."""
    monkeypatch.setattr(cpu.platform, "system", lambda: "Linux")
    monkeypatch.setattr(cpu.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(cpu, "auxiliary_value", {16: 1 << 20, 26: 1 << 13}.__getitem__)
    cpu.cpu_flags.cache_clear()
    try:
        assert cpu.cpu_flags() == {"asimddp", "i8mm"}
        assert not cpu.int8_products_saturate()
    finally:
        cpu.cpu_flags.cache_clear()


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx512_vnni\n\nprocessor\t: 1\nflags\t\t: fpu\n", {"fpu", "avx512_vnni"}),
        ("processor\t: 0\nFeatures\t: half thumb neon\n", {"half", "thumb", "neon"}),
        ("processor\t: 0\n", set()),
        ("", set()),
    ],
    ids=["x86", "32-bit ARM", "neither", "empty"],
)
def test_flags_of_a_list_are_those_of_its_first_core(text: str, flags: set[str]) -> None:
    """Each architecture has its own word for them."""
    assert cpu.listed_flags(text) == flags


@pytest.mark.skipif(sys.platform != "linux", reason="the auxiliary vector is Linux's")
def test_the_kernel_answers() -> None:
    """The size of a page is known by another way; a kind that does not exist is 0."""
    assert cpu.auxiliary_value(PAGE_SIZE) == os.sysconf("SC_PAGESIZE")
    assert cpu.auxiliary_value(12345) == 0


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="x86 lists its flags in a file")
def test_this_cpu_has_what_every_64_bit_x86_has() -> None:
    """The real file is read here."""
    cpu.cpu_flags.cache_clear()
    assert {"fpu", "sse2"} <= cpu.cpu_flags()
