"""Kill exports at random moments and show that nothing half-made is left and that a rerun ends in the same bundle.

    python tests/toolchain/kill_and_resume.py --trials 50
    python tests/toolchain/kill_and_resume.py --trials 20 --adapt

Each trial starts ``lraee-export`` as a process of its own, ends it with SIGKILL at a random moment after its first
stage began (with ``--adapt``: within the tuning of the trunk), looks at the target, runs the same command again to the
end, and compares the hashes of all files with an export that nobody disturbed. Every process runs on one core, so that
several trials run beside each other. The tests take `kill_in_turn` instead: one export, killed within one stage after
the other.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from lraee.bundle.folder import Bundle
from lraee_calibration_data import fashion_mnist_pool

OPTIONS = ("--exits", "4,8", "--reads", "patch_mean")
IMAGES = 100
SECONDS_AT_MOST = 1200


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What one killed and repeated export showed."""

    killed_after_s: float
    """Seconds after the first stage began."""
    stages: int
    """Stages that were finished when it was killed."""
    had_ended: bool
    """The export was quicker than the kill."""
    problem: str | None
    """What was wrong, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is exported, and when it is killed."""

    options: tuple[str, ...]
    """Of ``lraee-export``."""
    images: int
    began: str = ".lock"
    """What lies in the work folder when the time begins in which it is killed."""
    ended: str | None = None
    """What lies there when that time ends; None waits for the end of the export."""


EXPORT = Kind(options=OPTIONS, images=IMAGES)

ADAPTATION = Kind(
    options=(*OPTIONS, "--adapt", "--adapt-epochs", "4", "--adapt-learning-rate", "1e-6"),
    images=200,
    began=".begun-adapted-*",
    ended="adapted-*",
)
"""Learns from 40 % of its images in four views each, at a rate at which full depth does not fall: else the tuned trunk
would not be taken."""


def make_images(path: Path, count: int = IMAGES) -> Path:
    """A zip of some shipped images."""
    with zipfile.ZipFile(fashion_mnist_pool()) as pool, zipfile.ZipFile(path, "w") as few:
        names = sorted(name for name in pool.namelist() if name.endswith(".png"))
        for name in names[:: len(names) // count][:count]:
            few.writestr(name, pool.read(name))
    return path


def start(images: Path, out: Path, core: int, options: Sequence[str] = OPTIONS) -> subprocess.Popen[bytes]:
    """Start an export on one core."""
    command = [sys.executable, "-m", "lraee_toolchain.cli", "reference", "--out", str(out), "--train", str(images)]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    os.sched_setaffinity(process.pid, {core})
    return process


def finish(process: subprocess.Popen[bytes]) -> str | None:
    """Wait for an export; gives what it complained of."""
    _, errors = process.communicate(timeout=SECONDS_AT_MOST)
    return None if process.returncode == 0 else errors.decode(errors="replace")[-2000:]


def hashes(bundle: Path) -> dict[str, str]:
    """SHA-256 of every file, after the bundle has been verified; also of the tuned model beside it, if there is one."""
    Bundle(bundle).verify()
    tuned = bundle.with_suffix(".adapted")
    paths = sorted(bundle.iterdir()) + (sorted(tuned.iterdir()) if tuned.exists() else [])
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def kill_in_turn(images: Path, out: Path, stages: Sequence[str], options: Sequence[str]) -> str | None:
    """Kill an export while it writes a stage, start it again, kill it in the next one, and let it end at last.

    Args:
        images: to train on.
        out: the bundle.
        stages: names, in the order of an export.
        options: of ``lraee-export``.

    Returns:
        What was wrong, or None.
    """
    core = min(os.sched_getaffinity(0))
    work = out.with_name(f".{out.name}.work")
    for stage in stages:
        process = start(images, out, core, options)
        while not list(work.glob(f".writing-{stage}-*")):
            if process.poll() is not None:
                return f"the export ended before it wrote {stage}: {finish(process)}"
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        if list(work.glob(f"{stage}-*")):
            return f"{stage} was finished before the kill"
        if left := sorted(path.name for path in out.parent.iterdir() if path != work):
            return f"killed in {stage}, it left {', '.join(left)}"
    return finish(start(images, out, core, options))


def wait_for(process: subprocess.Popen[bytes], out: Path, pattern: str) -> None:
    """Wait until something lies in the work folder of a running export, or it ended."""
    work = out.with_name(f".{out.name}.work")
    while not any(work.glob(pattern)) and process.poll() is None:
        time.sleep(0.01)


def run_trial(kind: Kind, folder: Path, wanted: dict[str, str], duration_s: float, seed: int, core: int) -> Trial:
    """Kill one export, look, repeat it, compare."""
    folder.mkdir()
    images = folder.parent / "few.zip"
    out, delay_s = folder / "killed.lraee", random.Random(seed).uniform(0, duration_s)
    work = out.with_name(f".{out.name}.work")
    process = start(images, out, core, kind.options)
    wait_for(process, out, kind.began)
    try:
        process.wait(delay_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    had_ended = process.wait() == 0
    process.communicate()
    stages = [path.name for path in work.glob("[!.]*")] if work.exists() else []
    installed, problem = out.exists(), None  # it may also die behind the last step, while it clears up
    if not installed:
        problem = finish(start(images, out, core, kind.options))
    if problem is None and (met := hashes(out)) != wanted:
        differing = sorted(name for name in met.keys() | wanted.keys() if met.get(name) != wanted.get(name))
        problem = f"the {'killed' if installed else 'resumed'} export differs in {', '.join(differing)}"
    left = sorted(path.name for path in folder.iterdir())
    made = [*(["killed.adapted"] if "--adapt" in kind.options else []), "killed.lraee", "killed.report"]
    if problem is None and not installed and left != made:
        problem = f"left behind: {', '.join(left)}"
    return Trial(killed_after_s=delay_s, stages=len(stages), had_ended=had_ended, problem=problem)


def run_trials(folder: Path, count: int, *, seed: int = 0, kind: Kind = EXPORT) -> list[Trial]:
    """One undisturbed export, then `count` killed ones, as many at once as there are cores."""
    cores = sorted(os.sched_getaffinity(0))
    images = make_images(folder / "few.zip", kind.images)
    out = folder / "undisturbed.lraee"
    process = start(images, out, cores[0], kind.options)
    wait_for(process, out, kind.began)
    began = time.monotonic()
    if kind.ended is not None:
        wait_for(process, out, kind.ended)
        duration_s = time.monotonic() - began
    if problem := finish(process):
        raise RuntimeError(f"the undisturbed export failed: {problem}")
    if kind.ended is None:
        duration_s = time.monotonic() - began
    wanted = hashes(out)

    def trial(index: int) -> Trial:
        core = cores[index % len(cores)]
        return run_trial(kind, folder / f"trial-{index}", wanted, duration_s, seed + index, core)

    with ThreadPoolExecutor(len(cores)) as pool:
        return list(pool.map(trial, range(count)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a line for each trial; 1 when one failed."""
    parser = argparse.ArgumentParser(description="Kill exports at random moments and resume them.")
    parser.add_argument("--trials", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adapt", action="store_true", help="kill within the tuning of the trunk")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        kind = ADAPTATION if options.adapt else EXPORT
        trials = run_trials(Path(folder), options.trials, seed=options.seed, kind=kind)
    for number, trial in enumerate(trials, start=1):
        state = "had ended" if trial.had_ended else f"killed with {trial.stages} stages done"
        print(f"{number:3}  {trial.killed_after_s:5.1f} s  {state:28}  {trial.problem or 'same bundle'}")
    failed = sum(trial.problem is not None for trial in trials)
    print(f"{len(trials) - failed} of {len(trials)} resumed to the same bundle")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
