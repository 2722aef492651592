"""Reads what Linux allows this process: CPU time, memory, and tasks, as it calls processes and threads.

A container is held by control groups: ``docker --cpus 0.5`` sets a quota, ``--pids-limit 64`` a number of tasks. A user
is held by resource limits: ``ulimit -u`` bounds the tasks, ``ulimit -v`` the address space, in which each thread needs
a stack. A limit above the group that a container sees as its root, as Kubernetes sets for a pod, cannot be read.

Everything is read below a folder, which is ``/`` except in tests. Other systems lack these files, and set no limits.

Sources: cgroups(7), proc_pid_mountinfo(5), getrlimit(2), the kernel's Documentation/admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path("/")

ARENA_BYTES = 64 << 20
"""Address space that glibc's malloc reserves for a thread (HEAP_MAX_SIZE on 64 bits), in addition to its stack."""

STACK_BYTES = 8 << 20
"""A thread's stack where its size is unlimited."""

_PRIVILEGES = 1 << 21 | 1 << 24
"""CAP_SYS_ADMIN and CAP_SYS_RESOURCE: with one of them in the first user namespace, tasks are not limited."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskLimit:
    """Holds one limit on tasks, as it was when it was read."""

    name: str
    """The file or resource limit under which it can be looked up."""
    most: int
    """Tasks allowed."""
    used: int
    """Tasks that run already."""

    @property
    def room(self) -> int:
        """Tasks that may still be started, at least 0."""
        return max(self.most - self.used, 0)


def cpu_quota(root: Path = ROOT) -> float | None:
    """Read the cores' worth of time that this process may use: the smallest quota of its group and those above.

    None where no group sets one. ``docker --cpus 1.5`` gives 1.5.
    """
    shares = [share for folder in group_folders("cpu", root) if (share := _quota_of(folder)) is not None]
    return min(shares, default=None)


def _quota_of(folder: Path) -> float | None:
    """Read the quota of one group, of version 2 (cpu.max) or 1 (cpu.cfs_quota_us)."""
    words = _read(folder / "cpu.max").split()
    if not words:
        words = [_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()]
    quota, period = (_number(word) for word in [*words, "", ""][:2])
    return quota / period if quota and period else None  # "max", or -1, is none


def task_limit(root: Path = ROOT, *, wanted: int = 1) -> TaskLimit | None:
    """Find the limit that leaves room for the fewest tasks; None where every one leaves room for `wanted`."""
    least = min(task_limits(root, wanted=wanted), key=lambda limit: limit.room, default=None)
    return least if least is not None and least.room < wanted else None


def task_limits(root: Path = ROOT, *, wanted: int = 1) -> tuple[TaskLimit, ...]:
    """Read every limit on the tasks of this process.

    Args:
        root: folder that holds ``proc`` and ``sys``.
        wanted: tasks that are to be started. The tasks of a user are counted only where they might be too many.
    """
    return (*_group_limits(root), *_user_limit(root, wanted), *_space_limit(root))


def memory_bytes(root: Path = ROOT) -> tuple[int | None, int | None]:
    """Memory of the machine, and what of it is available; None where the system does not tell."""
    text = _read(root / "proc/meminfo")
    total, available = (_field(text, name) for name in ("MemTotal", "MemAvailable"))
    return (None if total is None else int(total) << 10, None if available is None else int(available) << 10)


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes that the control group of this process and the groups above allow; None where none sets a limit."""
    texts = (_read(folder / "memory.max") for folder in group_folders("memory", root))
    return min((limit for text in texts if (limit := _number(text)) is not None), default=None)


def _group_limits(root: Path) -> Iterator[TaskLimit]:
    for folder in group_folders("pids", root):
        most, used = (_number(_read(folder / name)) for name in ("pids.max", "pids.current"))
        if most is not None and used is not None:
            yield TaskLimit(name=f"{folder / 'pids.max'}", most=most, used=used)


def _user_limit(root: Path, wanted: int) -> Iterator[TaskLimit]:
    """Read RLIMIT_NPROC, which does not bind the superuser of the first user namespace."""
    most = _resource_limit(root, "Max processes")
    status = _read(root / "proc/self/status")
    user = _field(status, "Uid")
    if most is None or user is None:
        return
    in_first_namespace = _read(root / "proc/self/uid_map").split()[2:] in ([], ["4294967295"])
    if in_first_namespace and (user == "0" or int(_field(status, "CapEff") or "0", 16) & _PRIVILEGES):
        return
    everyones = _read(root / "proc/loadavg").partition("/")[2].split()  # a bound from one file
    used = int(everyones[0]) if everyones else 0
    if not everyones or most - used < wanted:
        used = _tasks_of_user(root, user)
    yield TaskLimit(name="RLIMIT_NPROC (ulimit -u)", most=most, used=used)


def _tasks_of_user(root: Path, user: str) -> int:
    tasks = 0
    for path in (root / "proc").glob("[0-9]*/status"):
        status = _read(path)
        if _field(status, "Uid") == user:
            tasks += int(_field(status, "Threads") or "1")
    return tasks


def _space_limit(root: Path) -> Iterator[TaskLimit]:
    """Read RLIMIT_AS as the number of threads for whose stacks and arenas it has room."""
    most = _resource_limit(root, "Max address space")
    if most is None:
        return
    stack = _resource_limit(root, "Max stack size")
    thread = ARENA_BYTES + (STACK_BYTES if stack is None else stack)
    used = int(_field(_read(root / "proc/self/status"), "VmSize") or "0") << 10
    name = f"RLIMIT_AS (ulimit -v), of which a thread takes {thread >> 20} MiB,"
    yield TaskLimit(name=name, most=most // thread, used=-(-used // thread))


@cache
def group_folders(controller: str, root: Path = ROOT) -> tuple[Path, ...]:
    """List the folders with limits of `controller` on this process: its control group, then each group above.

    Both versions of control groups are looked at, since a machine may have them side by side. Looked up once: the
    limits in these folders may change, the group of a process hardly ever does.
    """
    groups: dict[str, str] = {}  # controller to group; version 2 has no name
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, names, group = [*line.split(":", 2), "", ""][:3]
        groups |= dict.fromkeys(names.split(","), group)
    folders: list[Path] = []
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        mounted, kinds = before.split(), after.split()
        if len(mounted) < 5 or len(kinds) < 3:
            continue
        version_1 = kinds[0] == "cgroup" and controller in kinds[2].split(",")
        mine = groups.get(controller) if version_1 else groups.get("") if kinds[0] == "cgroup2" else None
        if mine is not None:
            folders += _upwards(root / _unescaped(mounted[4]).lstrip("/"), _unescaped(mounted[3]), mine)
    return tuple(dict.fromkeys(folders))


def _upwards(mount: Path, mounted_group: str, group: str) -> list[Path]:
    """List the folders from the group up to the mount; the mount alone where the group lies outside of it."""
    mounted, inside = Path(mounted_group), Path(group)
    if not inside.is_relative_to(mounted) or ".." in inside.parts:
        return [mount]
    folder = mount / inside.relative_to(mounted)
    return [folder, *(above for above in folder.parents if above.is_relative_to(mount))]


def _resource_limit(root: Path, name: str) -> int | None:
    """Read the soft limit that /proc/self/limits has under `name`; None for unlimited."""
    match = re.search(rf"^{name}\s+(\d+)\s", _read(root / "proc/self/limits"), re.MULTILINE)
    return int(match[1]) if match else None


def _field(status: str, name: str) -> str | None:
    """Read the first word of a field of /proc/PID/status, or of /proc/meminfo."""
    match = re.search(rf"^{name}:\s*(\S+)", status, re.MULTILINE)
    return match[1] if match else None


def _number(text: str) -> int | None:
    """Parse a whole number that is not negative; None for anything else."""
    word = text.strip()
    return int(word) if word.isascii() and word.isdigit() else None


def _unescaped(path: str) -> str:
    """Decode a path of mountinfo, which writes a blank as ``\\040``."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _read(path: Path) -> str:
    """Read the text of a file; empty where it is missing or may not be read."""
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
