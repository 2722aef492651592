"""Other CPUs under qemu: an arm64 Debian as on a Raspberry Pi, made from nothing, and an x86 without VNNI.

The arm64 system is a folder with packages that debootstrap fetched, and proot enters it with qemu-user as its CPU:
neither root nor binfmt is needed. qemu-user shows the host's /proc/cpuinfo, by which ONNX Runtime chooses its kernels;
so each core gets one of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RELEASE = "bookworm"
"""Debian 12 with Python 3.11, what Raspberry Pi OS was for years; the next release has Python 3.13."""
PACKAGES = ("python3", "python3-venv")
HOME = "/home/pi"
BENCH = f"{HOME}/lraee-env/bin"
"""Programs of the environment that the project's wheel is installed in."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
_ARM_CORES = 4
_HASWELL_FLAGS = "fpu sse sse2 ssse3 sse4_1 sse4_2 popcnt avx f16c fma avx2 bmi1 bmi2"


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    """A CPU that qemu emulates."""

    name: str
    program: str
    """qemu's."""
    model: str
    """As qemu's ``-cpu`` has it."""
    cpuinfo: str
    """What is to stand in /proc/cpuinfo."""


def _arm(name: str, part: str, features: str) -> Core:
    rows = [f"processor\t: {number}\nBogoMIPS\t: 108.00\nFeatures\t: {features}\nCPU implementer\t: 0x41\n"
            f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part}\nCPU revision\t: 3\n\n"
            for number in range(_ARM_CORES)]  # fmt: skip
    text = "".join(rows) + f"Model\t\t: {name} emulated by qemu, no Raspberry Pi\n"
    return Core(name=name, program="qemu-aarch64-static", model=name, cpuinfo=text)


CORES = {
    core.name: core
    for core in (
        _arm("cortex-a72", "0xd08", "fp asimd evtstrm crc32 cpuid"),
        _arm("cortex-a76", "0xd0b", "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimddp"),
        Core(
            name="haswell",
            program="qemu-x86_64-static",
            model="Haswell",
            cpuinfo=f"processor\t: 0\nmodel name\t: Haswell emulated by qemu\nflags\t\t: {_HASWELL_FLAGS}\n",
        ),
    )
}
"""Pi 4 (Cortex-A72, no dot product), Pi 5 (Cortex-A76, dot product), and an x86 with AVX2 but without VNNI."""


class EmulationError(RuntimeError):
    """Something that emulation needs is missing or failed; the message says what to do."""


def need(*programs: str) -> None:
    """Refuse to begin without these programs.

    Raises:
        EmulationError: with the command that installs what is missing.
    """
    if missing := [name for name in programs if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]:
        packages = sorted({"qemu-user-static" if name.startswith("qemu-") else name for name in missing})
        raise EmulationError(f"{', '.join(missing)} not found; on Debian: apt-get install {' '.join(packages)}")


def x86_command(core: Core, folder: Path, command: Sequence[str]) -> list[str]:
    """This machine's own programs on another x86; `folder` gets the core's /proc/cpuinfo."""
    cpuinfo = folder / core.name / "proc" / "cpuinfo"
    cpuinfo.parent.mkdir(parents=True, exist_ok=True)
    cpuinfo.write_text(core.cpuinfo, "utf-8")
    return [core.program, "-cpu", core.model, "-L", str(folder / core.name), *command]


@dataclass(frozen=True, slots=True)
class ArmSystem:
    """An arm64 Debian in a folder."""

    folder: Path
    """Holds ``system`` and what the cores differ in."""

    @property
    def system(self) -> Path:
        """The folder that is the root of its files."""
        return self.folder / "system"

    def command(self, core: Core, command: Sequence[str], *, bound: Mapping[Path, str] | None = None) -> list[str]:
        """What runs a program of the system, in the home folder and with nothing of this machine's environment.

        Args:
            core: the CPU to be.
            command: program and arguments, as the system has them.
            bound: files and folders of this machine, and where the system sees them.
        """
        cpus = "/sys/devices/system/cpu"
        facts = {
            "/proc/cpuinfo": core.cpuinfo,
            f"{cpus}/possible": f"0-{_ARM_CORES - 1}\n",
            f"{cpus}/present": f"0-{_ARM_CORES - 1}\n",
            "/etc/resolv.conf": _text("/etc/resolv.conf"),
            _CERTIFICATES: _text(os.environ.get("PIP_CERT", _CERTIFICATES)),
        }
        # Copies, so that nothing in the system can change this machine's own.
        folder = self.folder / "cores" / core.name
        folder.mkdir(parents=True, exist_ok=True)
        binds = ["/proc", *(f"/dev/{name}" for name in ("null", "zero", "random", "urandom", "shm"))]
        for place, text in facts.items():
            (folder / Path(place).name).write_text(text, "utf-8")
            binds.append(f"{folder / Path(place).name}:{place}")
        binds += [f"{path.resolve()}:{place}" for path, place in (bound or {}).items()]
        environment = [f"PATH={_PATH}", f"HOME={HOME}", "LANG=C.UTF-8", f"PIP_CERT={_CERTIFICATES}"]
        # Where pip finds packages is this machine's business.
        environment += [f"PIP_INDEX_URL={os.environ['PIP_INDEX_URL']}"] if "PIP_INDEX_URL" in os.environ else []
        words = ["proot", "-q", f"{core.program} -cpu {core.model}", "-r", str(self.system)]
        words += [word for bind in binds for word in ("-b", bind)]
        return [*words, "-w", HOME, "/usr/bin/env", "-i", "ORT_DISABLE_TELEMETRY=1", *environment, *command]

    def build(self) -> None:
        """Fill the folder: the packages of a minimal Debian with Python, unpacked; nothing to do when that was done.

        None of their installation scripts are run: as root they would change this machine, whose files proot shows.

        Raises:
            EmulationError: a program is missing or a step failed.
        """
        done = self.folder / "system.done"
        if done.exists():
            return
        need("debootstrap", "fakeroot", "proot", "qemu-aarch64-static", "dpkg-deb")
        archives = self.folder / "archives"
        for folder in (self.system, archives):
            shutil.rmtree(folder, ignore_errors=True)
        fetch = ["fakeroot", "debootstrap", "--download-only", "--arch=arm64", "--variant=minbase"]
        path = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        _checked([*fetch, f"--include={','.join(PACKAGES)}", RELEASE, str(archives)], path)
        for name in ("bin", "sbin", "lib"):
            (self.system / "usr" / name).mkdir(parents=True)
            (self.system / name).symlink_to(f"usr/{name}")
        for package in sorted((archives / "var" / "cache" / "apt" / "archives").glob("*.deb")):
            unpack = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(self.system)]
            files = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=False)
            unpacked = subprocess.run(unpack, input=files.stdout, capture_output=True, check=False)
            if files.returncode != 0 or unpacked.returncode != 0:
                raise EmulationError(f"{package} cannot be unpacked: {(files.stderr + unpacked.stderr).decode()}")
        (self.system / HOME[1:]).mkdir(parents=True)
        shutil.rmtree(archives)
        done.touch()

    def install(self, wheel: Path, versions: Mapping[str, str]) -> None:
        """Install a wheel with Pillow into an environment of its own, packages as given; nothing to do if it is there.

        Raises:
            EmulationError: pip failed.
        """
        done = self.folder / "wheel.done"
        if done.exists() and done.read_text("utf-8") == f"{wheel.stat().st_size} {versions}":
            return
        pinned = [f"{name}=={version}" for name, version in versions.items()]
        core, place = CORES["cortex-a72"], f"/tmp/{wheel.name}"
        _checked(self.command(core, ["python3", "-m", "venv", "--clear", str(Path(BENCH).parent)]))
        pip = [f"{BENCH}/pip", "install", "--no-cache-dir", "--quiet", f"{place}[image]", *pinned]
        _checked(self.command(core, pip, bound={wheel: place}))
        done.write_text(f"{wheel.stat().st_size} {versions}", "utf-8")


def _text(path: str) -> str:
    return Path(path).read_text("utf-8") if Path(path).exists() else ""


def _checked(command: list[str], environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-8:])
        raise EmulationError(f"{' '.join(command)}\nended with status {done.returncode}:\n{last}")
