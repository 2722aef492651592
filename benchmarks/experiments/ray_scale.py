"""Scale-out over Ray: what kills leave behind, how two workers compare with one, and what a billion images cost.

    python benchmarks/experiments/ray_scale.py kills reference test.zip --trials 10
    python benchmarks/experiments/ray_scale.py speed photo-clip pool.zip --count 20000
    python benchmarks/experiments/ray_scale.py cost --bundle photo-clip

Each calls ``python -m lraee_toolchain.ray`` as a process of its own. `--record` writes what was measured into
``ray_scale.json``, from which the documentation takes its tables.

- ``kills`` ends a worker or the driver with SIGKILL at a random moment, lets the run end or runs it again, and compares
  every file with those of an undisturbed run. Exit status 1 if one differs. What is recorded is added to what was
  recorded of other seeds.
- ``speed`` runs with one and with two workers in turns, and gives the ratio of the medians.
- ``cost`` runs every operating point with one worker of one thread, and takes CPU seconds of an image from shards after
  the first, in which a worker loads its model.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lraee.bundle.folder import Bundle, find_bundle
from lraee_benchmarks.device.description import describe_device
from lraee_calibration_data import photos

RECORD = Path(__file__).with_suffix(".json")
COMMAND = (sys.executable, "-m", "lraee_toolchain.ray")
ROWS_OF_A_FILE = 1024
"""Images of a shard by default; those of a measurement are smaller, so that there are several."""

WORKER = b"ray::MapWorker"
"""How the processes of workers are called."""


def start(kind: str, bundle: str, images: Path, out: Path, options: Sequence[str]) -> subprocess.Popen[str]:
    """Start a run."""
    command = [*COMMAND, kind, bundle, str(images), "--out", str(out), "--json", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """Wait for a run: what it says of each shard, and at last of itself."""
    told, errors = process.communicate()
    if process.returncode:
        raise SystemExit(f"a run ended with status {process.returncode}:\n{errors[-2000:]}")
    return [json.loads(line) for line in told.splitlines()]


def digests(out: Path) -> dict[str, str]:
    """SHA-256 of every file of an output."""
    paths = sorted(path for path in out.iterdir() if path.name != ".lock")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def positions(out: Path) -> list[int]:
    """Positions of all rows."""
    import pyarrow.parquet as pq

    found: list[int] = pq.read_table(out, columns=["position"]).column("position").to_pylist()
    return found


def workers_of(driver: int) -> list[int]:
    """Process ids of the workers below a driver."""
    parents: dict[int, int] = {}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            if (folder / "cmdline").read_bytes().startswith(WORKER):
                found.append(int(folder.name))
        except OSError:  # it has ended meanwhile
            continue

    def is_below(process: int) -> bool:
        while process in parents and process != driver:
            process = parents[process]
        return process == driver

    return [process for process in found if is_below(process)]


def kill_one(process: subprocess.Popen[str], target: str, out: Path, after_s: float, generator: random.Random) -> bool:
    """Kill a driver, or one of its workers, some seconds after the first shard; whether there was still one.

    Args:
        process: the driver.
        target: ``driver`` or ``worker``.
        out: folder of the shards.
        after_s: a number below 0 does not wait for a shard, but counts from the beginning.
        generator: chooses the worker.
    """
    while after_s >= 0 and process.poll() is None and not list(out.glob("shard-*.parquet")):
        time.sleep(0.01)
    until = time.monotonic() + abs(after_s)
    while process.poll() is None:
        if time.monotonic() >= until:
            victims = [process.pid] if target == "driver" else workers_of(process.pid)
            if victims:
                try:
                    os.kill(generator.choice(victims), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                return True
        time.sleep(0.01)
    return False


def with_earlier(measured: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """Put the trials of a run with kills after those that are recorded for the same bundle and number of images."""
    earlier = record.get("kills", {}).get("result", {})
    if any(earlier.get(key) != measured[key] for key in ("bundle", "images")):
        return measured
    trials, failed = earlier["trials"] + measured["trials"], earlier["failed"] + measured["failed"]
    return {**measured, "trials": trials, "failed": failed}


def kills(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill in turn a worker and the driver, and compare what is there at the end with an undisturbed run."""
    generator = random.Random(arguments.seed)
    options = ["--workers", "2", "--threads", "1", "--shard-size", str(arguments.shard_size)]
    images = some(arguments.images, arguments.count, folder)
    whole = finish(start("classify", arguments.bundle, images, folder / "whole", options))[-1]
    start_s, wanted = whole["total_seconds"] - whole["seconds"], digests(folder / "whole")
    trials = []
    for trial in range(arguments.trials):
        for target in ("worker", "driver"):
            out = folder / f"{target}-{trial}"
            # The first of each is killed while it starts, all others while shards are computed.
            after_s = generator.uniform(0, whole["seconds"]) if trial else -generator.uniform(0, start_s)
            process = start("classify", arguments.bundle, images, out, options)
            was_killed = kill_one(process, target, out, after_s, generator)
            if target == "driver" and was_killed:
                process.communicate()
                there = len(list(out.glob("shard-*.parquet")))
                last = finish(start("classify", arguments.bundle, images, out, options))[-1]
            else:
                there, last = 0, finish(process)[-1]
            once = positions(out) == list(range(whole["images"]))
            same = digests(out) == wanted
            trials.append({"target": target, "after_s": round(after_s, 1), "killed": was_killed, "shards_there": there})
            trials[-1] |= {"found": last["found"], "each_image_once": once, "files_equal": same}
            print(json.dumps(trials[-1]), flush=True)
            shutil.rmtree(out)
    failed = sum(not (trial["each_image_once"] and trial["files_equal"]) for trial in trials)
    return {"bundle": arguments.bundle, "images": whole["images"], "trials": trials, "failed": failed}


def speed(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run with one and two workers in turns."""
    images = some(arguments.images, arguments.count, folder)
    found: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for turn in range(arguments.repeats):
        for workers in (1, 2) if turn % 2 == 0 else (2, 1):
            out = folder / f"{workers}-{turn}"
            options = ["--workers", str(workers), "--threads", "1", "--shard-size", str(arguments.shard_size)]
            summary = finish(start("classify", arguments.bundle, images, out, options))[-1]
            found[workers].append(summary)
            print(f"{workers} workers: {summary['seconds']:.1f} s, {summary['total_seconds']:.1f} s whole", flush=True)
            shutil.rmtree(out)
    result: dict[str, Any] = {"bundle": arguments.bundle, "images": found[1][0]["images"], "repeats": arguments.repeats}
    for name in ("seconds", "total_seconds"):
        one, two = (statistics.median(run[name] for run in found[workers]) for workers in (1, 2))
        result[name] = {"one_worker": one, "two_workers": two, "ratio": one / two}
    return result


def cost(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    """Run every operating point, embeddings and features once over each source of images."""
    rows = []
    for source in arguments.images or [photos()]:
        images = some(source, arguments.count, folder)
        for bundle in arguments.bundle:
            for kind, policy in plan(Bundle(find_bundle(bundle))):
                options = ["--workers", "1", "--threads", "1", "--shard-size", str(arguments.shard_size)]
                options += [] if policy is None else ["--policy", policy]
                *shards, summary = finish(start(kind, bundle, images, folder / "out", options))
                shards.sort(key=lambda shard: shard["began"])
                counted = shards[1:] or shards
                rows.append(
                    {
                        "images": source.stem,
                        "count": summary["images"],
                        "bundle": Path(bundle).stem,
                        "kind": kind,
                        "policy": policy or "full",
                        "cpu_seconds": statistics.median(shard["cpu_seconds"] / shard["images"] for shard in counted),
                        "read_bytes": summary["read_bytes"] / summary["images"],
                        "written_bytes": row_bytes(folder / "out"),
                    }
                )
                print(json.dumps(rows[-1]), flush=True)
                shutil.rmtree(folder / "out")
    return rows


def row_bytes(out: Path) -> float:
    """Bytes of a row in files of `ROWS_OF_A_FILE`: what a row adds, and its share of what every file has besides.

    The two come from the sizes of the files that are there and of one with all their rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    sizes = [path.stat().st_size for path in out.glob("shard-*.parquet")]
    table, sink = pq.read_table(out), pa.BufferOutputStream()
    repeated = ["error", "label", "schedule", "top_labels.list.element"]
    pq.write_table(table, sink, compression="zstd", use_dictionary=repeated, write_page_checksum=True)
    each, rows = statistics.mean(sizes), len(table) / len(sizes)
    of_row = (sink.getvalue().size - each) / (len(table) - rows)
    return of_row + (each - rows * of_row) / ROWS_OF_A_FILE


def plan(bundle: Bundle) -> Iterator[tuple[str, str | None]]:
    """Kinds and policies to measure: full depth, each merging schedule, each operating point, embeddings, features."""
    yield "classify", "full"
    yield from (("classify", f"full@{schedule.name}") for schedule in bundle.manifest.schedules)
    yield from (("classify", f"adaptive={point.name}") for point in bundle.manifest.operating_points)
    yield from (("embed", None), ("features", None))


def some(images: Path, count: int | None, folder: Path) -> Path:
    """Images of a zip, evenly chosen, as another zip; all where no number is given, or of a folder."""
    if count is None or images.is_dir():
        return images
    target = folder / f"{images.stem}-{count}.zip"
    with zipfile.ZipFile(images) as packed, zipfile.ZipFile(target, "w") as few:
        names = sorted(name for name in packed.namelist() if not name.endswith("/"))
        for name in names[:: max(1, len(names) // count)][:count]:
            few.writestr(name, packed.read(name))
    return target


@contextmanager
def scratch(folder: Path | None) -> Iterator[Path]:
    """A folder for outputs, removed at the end."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        yield Path(made)


def parsed() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scratch", type=Path, help="folder for outputs; that of temporary files by default")
    commands = parser.add_subparsers(dest="what", required=True)
    for name in ("kills", "speed"):
        command = commands.add_parser(name)
        command.add_argument("bundle")
        command.add_argument("images", type=Path, help="zip of images")
    command = commands.add_parser("cost")
    command.add_argument("--bundle", action="append", help="may be repeated; photo-clip by default")
    command.add_argument("--images", type=Path, action="append", help="may be repeated; the shipped photos by default")
    for name, command in commands.choices.items():
        command.add_argument("--count", type=int, help="images of a zip to take; all by default")
        command.add_argument("--shard-size", type=int, default=16 if name == "cost" else 512)
        command.add_argument("--record", action="store_true", help=f"write the result into {RECORD.name}")
    commands.choices["kills"].add_argument("--trials", type=int, default=10, help="of a worker, and of the driver")
    commands.choices["kills"].add_argument("--seed", type=int, default=1)
    commands.choices["speed"].add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "cost":
        arguments.bundle = arguments.bundle or ["photo-clip"]
    return arguments


def main() -> None:
    """Measure, print, and record where that was asked for."""
    arguments = parsed()
    with scratch(arguments.scratch) as folder:
        measured = {"kills": kills, "speed": speed, "cost": cost}[arguments.what](arguments, folder)
    result = {"machine": describe_device().model, "date": datetime.date.today().isoformat(), "result": measured}
    print(json.dumps(result, indent=1))
    if arguments.record:
        record = json.loads(RECORD.read_text("utf-8")) if RECORD.is_file() else {}
        if arguments.what == "kills":
            result["result"] = with_earlier(measured, record)
        RECORD.write_text(json.dumps({**record, arguments.what: result}, indent=1) + "\n", "utf-8")
    if arguments.what == "kills" and measured["failed"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
