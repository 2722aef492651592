"""Limits of the system are read from made-up trees of /proc and /sys, of both versions of control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lraee.ort import limits
from lraee.ort.limits import TaskLimit, cpu_quota, group_folders, memory_bytes, memory_limit, task_limit, task_limits

V2_MOUNT = "30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_MOUNTS = (
    "31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "32 24 0:28 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
)

LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max stack size            8388608              unlimited            bytes
Max processes             {processes:<20} unlimited            processes
Max address space         {space:<20} unlimited            bytes
"""

STATUS = (
    "Name:\tpython3\nUid:\t{user}\t{user}\t{user}\t{user}\nThreads:\t{threads}\nVmSize:\t{space} kB\nCapEff:\t{caps}\n"
)


class Tree:
    """A root folder that a test fills."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, files: dict[str, str]) -> Path:
        """Write files by their paths below the root, which is given back."""
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return self.root

    def user(
        self,
        *,
        processes: str = "unlimited",
        space: str = "unlimited",
        user: int = 1000,
        caps: str = "0000000000000000",
        namespace: str = "         0          0 4294967295\n",
    ) -> Path:
        """Write a process of `user` with 3 threads and 100 MiB, and two others, one of them of the same user."""
        own = STATUS.format(user=user, threads=3, space=100 << 10, caps=caps)
        files = {f"proc/{place}/status": own for place in ("self", "41")}
        files |= {
            "proc/42/status": STATUS.format(user=user, threads=5, space=1, caps=caps),
            "proc/43/status": STATUS.format(user=user + 1, threads=7, space=1, caps=caps),
            "proc/self/limits": LIMITS.format(processes=processes, space=space),
            "proc/self/uid_map": namespace,
            "proc/loadavg": "0.00 0.01 0.05 1/15 43\n",
        }
        return self.write(files)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Make an empty tree."""
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("50000 100000\n", 0.5),
        ("150000 100000\n", 1.5),
        ("max 100000\n", None),
        ("20000 10000\n", 2.0),
        ("", None),
        ("many\n", None),
        ("50000\n", None),
        ("50000 0\n", None),
    ],
)
def test_a_quota_of_version_2_is_time_over_period(tree: Tree, text: str, quota: float | None) -> None:
    """``max``, and what no kernel writes, is none."""
    group = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": V2_MOUNT, "sys/fs/cgroup/cpu.max": text}
    assert cpu_quota(tree.write(group)) == quota


@pytest.mark.parametrize(("written", "quota"), [("50000", 0.5), ("-1", None), ("", None)])
def test_a_quota_of_version_1_is_time_over_period(tree: Tree, written: str, quota: float | None) -> None:
    """A quota of -1 means that there is none."""
    root = tree.write(
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/\n3:pids:/\n",
            "proc/self/mountinfo": V1_MOUNTS,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": written,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        }
    )
    assert cpu_quota(root) == quota


def test_the_smallest_quota_of_a_group_and_those_above_counts(tree: Tree) -> None:
    """A group that sets none is held by its parents'."""
    root = tree.write(
        {
            "proc/self/cgroup": "0::/slice/pod/container\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/slice/pod/container/cpu.max": "max 100000",
            "sys/fs/cgroup/slice/pod/cpu.max": "300000 100000",
            "sys/fs/cgroup/slice/cpu.max": "200000 100000",
        }
    )
    assert cpu_quota(root) == 2.0


def test_both_versions_may_stand_side_by_side(tree: Tree) -> None:
    """Version 2 for one thing, version 1 for another, as systemd's hybrid has them."""
    root = tree.write(
        {
            "proc/self/cgroup": "4:cpu,cpuacct:/a\n3:pids:/a\n0::/a\n",
            "proc/self/mountinfo": V1_MOUNTS + V2_MOUNT.replace("/sys/fs/cgroup ", "/sys/fs/cgroup/unified "),
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu,cpuacct/a/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/a/cpu.max": "max 100000",
            "sys/fs/cgroup/pids/a/pids.max": "64",
            "sys/fs/cgroup/pids/a/pids.current": "50",
        }
    )
    assert cpu_quota(root) == 1.0
    limit = task_limit(root, wanted=15)
    assert limit is not None
    assert (limit.most, limit.used, limit.room) == (64, 50, 14)
    assert task_limit(root, wanted=14) is None


def test_a_container_sees_its_own_group_as_the_root_of_a_mount(tree: Tree) -> None:
    """Of version 1, without a namespace: the group's path is the host's, and the mount begins at it."""
    root = tree.write(
        {
            "proc/self/cgroup": "3:pids:/docker/abc\n",
            "proc/self/mountinfo": "32 24 0:28 /docker/abc /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n",
        }
    )
    assert group_folders("pids", root) == (root / "sys/fs/cgroup/pids",)


@pytest.mark.parametrize("group", ["/../other", "/elsewhere"])
def test_a_group_outside_of_the_mount_has_the_mounts_limits(tree: Tree, group: str) -> None:
    """As in a namespace that the process was moved out of."""
    mount = V2_MOUNT.replace(" / /sys", " /docker /sys") if group == "/elsewhere" else V2_MOUNT
    root = tree.write({"proc/self/cgroup": f"0::{group}\n", "proc/self/mountinfo": mount})
    assert group_folders("cpu", root) == (root / "sys/fs/cgroup",)


def test_a_mount_may_have_a_blank_in_its_path(tree: Tree) -> None:
    """The kernel writes it as an octal number; the group is named as it is, colon and all."""
    mount = V2_MOUNT.replace("/sys/fs/cgroup", r"/my\040groups")
    root = tree.write({"proc/self/cgroup": "0::/a:b c\n", "proc/self/mountinfo": mount})
    assert group_folders("cpu", root) == (root / "my groups/a:b c", root / "my groups")


def test_a_system_without_control_groups_has_no_limits(tree: Tree) -> None:
    """Files that make no sense do not limit either."""
    assert cpu_quota(tree.root) is None
    assert task_limit(tree.root, wanted=10**9) is None
    tree.write({"proc/self/cgroup": "nonsense\n\n1\n", "proc/self/mountinfo": "nonsense\n - \n1 2 3 - cgroup2\n"})
    group_folders.cache_clear()
    assert cpu_quota(tree.root) is None
    assert task_limit(tree.root, wanted=10**9) is None


def test_tasks_of_the_user_are_counted_where_a_limit_may_be_met(tree: Tree) -> None:
    """All tasks of the machine, which one file tells, are a bound: 15, of which 8 are the user's."""
    root = tree.user(processes="40")
    assert task_limit(root, wanted=25) is None
    assert task_limit(root, wanted=32) is None
    assert task_limit(root, wanted=33) == TaskLimit(name="RLIMIT_NPROC (ulimit -u)", most=40, used=8)


@pytest.mark.parametrize("free", [{"user": 0}, {"caps": "0000000001000000"}, {"caps": "0000000000200000"}])
def test_the_superuser_may_start_any_number_of_tasks(tree: Tree, free: dict[str, object]) -> None:
    """CAP_SYS_RESOURCE or CAP_SYS_ADMIN lift it too; being the superuser of a container alone does not."""
    assert task_limit(tree.user(processes="40", **free), wanted=10**6) is None  # type: ignore[arg-type]
    played = "         0       1000      65536\n"
    limit = task_limit(tree.user(processes="40", namespace=played, **free), wanted=10**6)  # type: ignore[arg-type]
    assert limit is not None
    assert limit.used == 8


def test_address_space_is_counted_in_threads(tree: Tree) -> None:
    """A stack and what malloc reserves: 72 MiB each."""
    limit = task_limit(tree.user(space=str(1 << 30)), wanted=1000)
    assert limit is not None
    assert (limit.most, limit.used) == (14, 2)
    assert limit.name.startswith("RLIMIT_AS (ulimit -v)")


def test_the_narrowest_limit_is_told(tree: Tree) -> None:
    """Of several that are too narrow."""
    tree.user(processes="40", space=str(1 << 40))
    root = tree.write(
        {
            "proc/self/cgroup": "0::/a\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/a/pids.max": "max",
            "sys/fs/cgroup/a/pids.current": "3",
            "sys/fs/cgroup/pids.max": "10",
            "sys/fs/cgroup/pids.current": "12",
        }
    )
    limit = task_limit(root, wanted=100)
    assert limit is not None
    assert (limit.name, limit.room) == (str(root / "sys/fs/cgroup/pids.max"), 0)


@pytest.mark.skipif(not Path("/proc/self/limits").is_file(), reason="Linux alone")
def test_this_process_is_read() -> None:
    """The real files are in the form that the made-up ones have."""
    status = limits._read(Path("/proc/self/status"))
    assert limits._field(status, "Uid") == str(os.getuid())
    assert limits._tasks_of_user(Path("/"), str(os.getuid())) >= int(limits._field(status, "Threads") or "0") >= 1
    assert "Max processes" in limits._read(Path("/proc/self/limits"))


def test_memory_is_that_of_the_machine_and_of_the_tightest_group(tree: Tree) -> None:
    """``docker --memory 512m`` writes it into memory.max; without files nothing is known and nothing limits."""
    assert memory_bytes(tree.root) == (None, None)
    assert memory_limit(tree.root) is None
    group_folders.cache_clear()
    files = {"proc/meminfo": "MemTotal:     1024 kB\nMemAvailable:    512 kB\n"}
    files |= {"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": V2_MOUNT}
    files |= {"sys/fs/cgroup/memory.max": "1000\n", "sys/fs/cgroup/a/memory.max": "max\n"}
    tree.write(files)
    assert memory_bytes(tree.root) == (1 << 20, 1 << 19)
    assert memory_limit(tree.root) == 1000


def test_every_limit_on_tasks_is_told(tree: Tree) -> None:
    """Also those with room left: a report of a fault wants them all."""
    tree.user(processes="100", space=str(1 << 40))
    assert [limit.most for limit in task_limits(tree.root)] == [100, (1 << 40) // (72 << 20)]
