"""Run a command as on an x86 with AVX2 alone, the CPU of most PCs older than 2020.

    python benchmarks/emulate/hidden_features.py .venv/bin/pytest tests/runtime

AVX-512, VNNI and AMX are hidden from CPUID, by which ONNX Runtime chooses its kernels, and from /proc/cpuinfo, by which
lraee does; `hide_features.c` says how, and what that shows. Where this CPU has none of them the command runs as it is.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lraee.ort.cpu import cpu_flags, is_x86

SOURCE = Path(__file__).with_name("hide_features.c")

NEWER = re.compile(r"(?:avx512|avx_|avx10|amx_)\w*")
"""Names, as Linux has them, of what is hidden: AVX-512 and its VNNI, AVX-VNNI and its kin, AMX."""


def newer_features(flags: frozenset[str]) -> list[str]:
    """Which of a CPU's features are hidden.

    >>> newer_features(frozenset({"avx2", "avx512_vnni", "avx_vnni"}))
    ['avx512_vnni', 'avx_vnni']
    """
    return sorted(flag for flag in flags if NEWER.fullmatch(flag))


def obstacle(*, x86_linux: bool, flags: frozenset[str], compiler: bool) -> str | None:
    """Why nothing can be hidden here and what to do, in one line; None where it can, or there is nothing to hide.

    Args:
        x86_linux: whether this is Linux on an x86.
        flags: features of the CPU.
        compiler: whether there is a C compiler.
    """
    if not x86_linux:
        return "only Linux on an x86 CPU can run as AVX2 alone; use such a machine"
    if not newer_features(flags):
        return None
    if "cpuid_fault" not in flags:
        return (
            f"this CPU has {newer_features(flags)[0]} and cannot hide it (no cpuid_fault in /proc/cpuinfo, as in many "
            "virtual machines); use another x86 machine, or one with AVX2 alone"
        )
    if not compiler:
        return "no C compiler found to build hide_features.c; on Debian: apt-get install gcc libc6-dev"
    return None


def obstacle_here() -> str | None:
    """Find the `obstacle` of this machine."""
    return obstacle(
        x86_linux=platform.system() == "Linux" and is_x86(),
        flags=cpu_flags(),
        compiler=shutil.which("cc") is not None,
    )


def cpuinfo_without_newer(cpuinfo: str) -> str:
    """The text of /proc/cpuinfo with the hidden features taken out of the flags of every core.

    >>> cpuinfo_without_newer("flags : fpu avx2 avx512f avx_vnni\\n")
    'flags : fpu avx2\\n'
    """
    lines = [
        re.sub(rf"\s{NEWER.pattern}(?=\s)", "", line) if line.startswith("flags") else line
        for line in cpuinfo.splitlines(keepends=True)
    ]
    return "".join(lines)


def hidden_command(folder: Path, command: Sequence[str]) -> list[str]:
    """What runs a command with the features hidden; the command itself where this CPU has nothing to hide.

    Args:
        folder: gets the library that hides, and the text of /proc/cpuinfo; must exist while the command runs.
        command: program and arguments.

    Raises:
        RuntimeError: nothing can be hidden here; the message says what to do.
    """
    if reason := obstacle_here():
        raise RuntimeError(reason)
    if not newer_features(cpu_flags()):
        return [*command]
    folder.mkdir(parents=True, exist_ok=True)
    library, cpuinfo = folder / "hide_features.so", folder / "cpuinfo"
    build = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(SOURCE), "-ldl"]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{SOURCE.name} cannot be compiled: {done.stderr.strip()}")
    cpuinfo.write_text(cpuinfo_without_newer(Path("/proc/cpuinfo").read_text("utf-8", errors="replace")), "utf-8")
    return ["env", f"LD_PRELOAD={library}", f"LRAEE_CPUINFO={cpuinfo}", *command]


def main(command: Sequence[str]) -> int:
    """Run a command; gives its exit status, 1 where nothing can be hidden, 2 without a command."""
    if not command:
        print(f"usage: python {os.path.relpath(__file__)} COMMAND...", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="lraee-hidden-") as folder:
        try:
            words = hidden_command(Path(folder), command)
        except RuntimeError as error:
            print(f"cannot run as on AVX2 alone: {error}", file=sys.stderr)
            return 1
        hidden = ", ".join(newer_features(cpu_flags()))
        print(f"hidden: {hidden}" if hidden else "this CPU has AVX2 alone: nothing to hide", file=sys.stderr)
        return subprocess.run(words, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
