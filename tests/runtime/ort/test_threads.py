"""Threads are those that pay, and never more than the system allows: ONNX Runtime would wait for them for ever."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import lraee
from lraee.errors import ThreadsWarning
from lraee.ort import limits, threads
from lraee.ort.threads import PAYING_FLOPS, default_threads, fitting_threads

USER = 54_321 + os.getpid() % 5_000
"""Has no other process, also where tests of this file run in several processes at once."""

ROOM = 40

NARROW = shutil.which("setpriv") if os.name == "posix" and os.geteuid() == 0 else sys.platform == "linux"


def in_a_narrow_place(*command: str) -> subprocess.CompletedProcess[str]:
    """Run Python where its user may have `ROOM` tasks (for who is not the superuser, as many more).

    The superuser is not bound: another real user takes the place, who may still read all files.
    """
    import resource

    most, prefix = ROOM, []
    if os.geteuid() == 0:
        prefix = ["setpriv", "--ruid", str(USER), "--bounding-set", "-sys_admin,-sys_resource"]
    else:
        most += limits._tasks_of_user(Path("/"), str(os.getuid()))
    return subprocess.run(
        [*prefix, sys.executable, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,  # instead of for ever
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (most, most)),
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1"},
    )


def quota(root: Path, written: str) -> Path:
    """A tree of a container whose CPU quota is `written`."""
    mount = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mount, "sys/fs/cgroup/cpu.max": written}
    return tree(root, files)


def tasks(root: Path, most: int, used: int) -> Path:
    """A tree of a container that may have `most` tasks."""
    mount = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    files = {"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mount}
    files |= {"sys/fs/cgroup/pids.max": str(most), "sys/fs/cgroup/pids.current": str(used)}
    return tree(root, files)


def tree(root: Path, files: dict[str, str]) -> Path:
    """Write files below a root folder."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, "utf-8")
    return root


@pytest.mark.parametrize(
    ("written", "expected"),
    [("50000 100000", 1), ("150000 100000", 1), ("250000 100000", 2), ("max 100000", 8), ("1600000 100000", 8)],
)
def test_a_quota_of_the_cpu_bounds_the_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, expected: int
) -> None:
    """``docker --cpus 0.5`` gets one thread on eight cores; whole cores of the quota count."""
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    assert default_threads(root=quota(tmp_path, written)) == expected


def test_small_blocks_run_on_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the reference; large ones take every core."""
    monkeypatch.setattr(threads, "available_cores", lambda: 4)
    assert default_threads(PAYING_FLOPS - 1, tmp_path) == 1
    assert default_threads(PAYING_FLOPS, tmp_path) == default_threads(None, tmp_path) == 4
    assert lraee.load("reference").threads == 1
    assert lraee.load("reference", threads=2).threads == 2


def test_environment_variables_do_not_set_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The documentation says so."""
    page = " ".join((Path(__file__).parents[3] / "docs" / "use.md").read_text("utf-8").split())
    assert "`OMP_NUM_THREADS` and `PYTHON_CPU_COUNT` do not" in page
    before = default_threads(root=tmp_path)
    for name in ("OMP_NUM_THREADS", "PYTHON_CPU_COUNT", "ORT_INTRA_OP_NUM_THREADS"):
        monkeypatch.setenv(name, str(before + 1))
    assert default_threads(root=tmp_path) == before


def test_threads_that_do_not_fit_are_fewer_with_one_warning(tmp_path: Path) -> None:
    """19 sessions at 8 threads start 133; with 64 tasks allowed and 5 used, 3 threads fit and leave some to spare."""
    root = tasks(tmp_path, 64, 5)
    with pytest.warns(
        ThreadsWarning, match=r"start 133 threads, but .*pids\.max allows 64, of which 5 are used"
    ) as told:
        assert fitting_threads(8, sessions=19, root=root) == 3
    assert len(told) == 1
    assert "going on with 3 threads. Ask for 3 threads, or raise the limit" in str(told[0].message)
    assert fitting_threads(3, sessions=19, root=root) == 3
    assert fitting_threads(1, sessions=19, root=tasks(tmp_path, 5, 5)) == 1


def test_what_other_models_will_start_is_no_room(tmp_path: Path) -> None:
    """Their sessions are made when an image first reaches them."""
    with pytest.warns(ThreadsWarning, match="and 38 are promised to other models: going on with 1 thread"):
        assert fitting_threads(2, sessions=19, promised=38, root=tasks(tmp_path, 64, 5)) == 1


def test_a_model_says_how_many_threads_it_has() -> None:
    """One less than run a part, for each part that it may reach; the text tower is one, a session made is counted."""
    model = lraee.load("reference", threads=3)
    parts = len(model.manifest.parts) - 1  # graph.onnx is there for comparison
    assert (model.threads, model.thread_total) == (3, 2 * parts)
    assert repr(model) == f"<lraee.Model reference.lraee: threads 3, {2 * parts} to start>"
    if sys.platform == "linux":
        before = len(os.listdir("/proc/self/task"))
        model.warm()
        assert len(os.listdir("/proc/self/task")) - before == 2 * (parts - 1)
    assert model.thread_total == 2 * parts
    assert lraee.load("reference", threads=1).thread_total == 0


LOADS = """
import os, threading, warnings, unicodedata
import numpy as np
import lraee
from lraee.errors import SettingsError

image = np.zeros((28, 28, 3), np.uint8)

def count(heard):
    return [warning.category.__name__ for warning in heard]

def load(**more):
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        model = lraee.load("reference", threads=8, **more)
        model.classify(image, policy=lraee.Full())
        model.warm()
        model.set_labels(["shoe", "shirt"])
    print(model.threads, model.thread_total, *count(heard))
    return model

with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    before = [lraee.load("reference", threads=2) for _ in range(2)]
print("before any image", *[model.threads for model in before], *count(heard))
del before
first = load()
print(len(os.listdir("/proc/self/task")) - 1 == first.thread_total)
second = load()
del first
hold = threading.Event()
with warnings.catch_warnings(record=True) as heard:
    warnings.simplefilter("always")
    late = lraee.load("reference", threads=2)
    while True:
        try:
            threading.Thread(target=hold.wait, daemon=True).start()
        except RuntimeError:
            break
    late.classify(image, policy=lraee.Full())
print("late", late.threads, *count(heard))
try:
    lraee.load("reference", threads=1, preload=True)
except SettingsError as error:
    print(error)
hold.set()
"""


@pytest.mark.skipif(not NARROW, reason="needs Linux, and setpriv where the superuser runs the tests")
def test_a_load_under_a_limit_on_processes_ends() -> None:
    """With fewer threads and one warning: a second model beside one that has seen no image or some, and one whose room
    is taken by others before its first image.

    Only the thread that preloads cannot be done without; it is refused by name.
    """
    done = in_a_narrow_place("-c", LOADS)
    assert done.returncode == 0, done.stderr
    before, first, counted, second, late, refused = done.stdout.splitlines()
    assert before == "before any image 2 1 ThreadsWarning"
    assert first == "2 20 ThreadsWarning"
    assert counted == "True"
    assert second == "1 0 ThreadsWarning"
    assert late == "late 1 ThreadsWarning"
    assert refused.startswith("preload is on, and the system does not give the thread that it needs")


FORKS = """
import os, signal, sys, unicodedata, warnings
import numpy as np
import lraee
image = np.zeros((28, 28, 3), np.uint8)
warnings.simplefilter("ignore")
model = lraee.load("reference", threads=2)
model.warm()
wanted = model.classify(image, policy=lraee.Full()).top
child = os.fork()
if child == 0:
    signal.alarm(30)
    same = model.classify(image, policy=lraee.Full()).top == wanted
    print(model.threads, same, flush=True)
    os._exit(0)
print(model.threads, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not NARROW, reason="needs Linux, and setpriv where the superuser runs the tests")
def test_a_forked_child_counts_again() -> None:
    """Its parent has taken half of the room."""
    done = in_a_narrow_place("-c", FORKS)
    assert done.stdout.splitlines() == ["1 True", "2 0"], done.stderr


@pytest.mark.skipif(not NARROW, reason="needs Linux, and setpriv where the superuser runs the tests")
def test_a_command_prints_the_warning_as_one_line() -> None:
    """It classifies all the same."""
    from PIL import Image

    with tempfile.TemporaryDirectory() as folder:  # the other user may read it, which pytest's own folders forbid
        Path(folder).chmod(0o755)
        Image.new("RGB", (28, 28)).save(f"{folder}/black.png")
        done = in_a_narrow_place("-m", "lraee", "classify", "reference", f"{folder}/black.png", "--threads", "8")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: 20 sessions at 8 threads start 140 threads, but RLIMIT_NPROC (ulimit -u)")
    assert len(done.stderr.splitlines()) == 1


SPACE = """
import resource, warnings, unicodedata
import numpy as np
import lraee
from lraee.ort.limits import _field
size = int(_field(open("/proc/self/status").read(), "VmSize")) << 10
resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 30),) * 2)
warnings.simplefilter("ignore")
model = lraee.load("reference", threads=8)
model.classify(np.zeros((28, 28, 3), np.uint8), policy=lraee.Full())
print(model.threads)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone bounds the address space so")
def test_a_load_under_a_limit_on_address_space_ends() -> None:
    """Stacks need address space: with a gigabyte there is none for 140 of them."""
    done = subprocess.run([sys.executable, "-c", SPACE], capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "1\n", done.stderr
