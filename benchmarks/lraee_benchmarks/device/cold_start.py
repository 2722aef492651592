"""Time to the first answer and memory, in fresh processes: what a service that is restarted costs.

The process is not a `lraee_benchmarks.running.process.Remote`: unpickling an object there would import lraee before the
clock that times the import is read. `fresh_process` takes its arguments as words and the image on stdin instead.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from lraee.bundle.strict_json import decode
from lraee.ort.sessions import SessionSettings
from lraee_benchmarks.results.conditions import ColdStart
from lraee_benchmarks.running.process import ended_error


def measure_cold_start(
    bundle: Path,
    image: bytes,
    settings: SessionSettings,
    *,
    processes: int,
    on_progress: Callable[[float], None] | None = None,
) -> ColdStart:
    """Start processes one after the other and take the median of each number.

    Args:
        bundle: its folder.
        image: an encoded image.
        settings: threads and pool of the sessions.
        processes: how many, at least 1.
        on_progress: called after each with the share that is done, 0 to 1.

    Raises:
        BundleError: a process did not answer.
    """
    runs: list[ColdStart] = []
    for number in range(processes):
        runs.append(_run_fresh(bundle, image, settings))
        if on_progress is not None:
            on_progress((number + 1) / processes)
    private = [run.private_bytes for run in runs if run.private_bytes is not None]
    return ColdStart(
        processes=processes,
        import_ms=median(run.import_ms for run in runs),
        load_ms=median(run.load_ms for run in runs),
        first_image_ms=median(run.first_image_ms for run in runs),
        to_first_answer_ms=median(run.to_first_answer_ms for run in runs),
        rss_bytes=int(median(run.rss_bytes for run in runs)),
        peak_rss_bytes=max(run.peak_rss_bytes for run in runs),
        private_bytes=int(median(private)) if private else None,
    )


def _run_fresh(bundle: Path, image: bytes, settings: SessionSettings) -> ColdStart:
    command = [
        sys.executable,
        "-P",
        "-m",
        "lraee_benchmarks.device.fresh_process",
        str(bundle),
        str(settings.thread_count),
    ]
    command += [settings.thread_pool, str(time.monotonic_ns())]
    done = subprocess.run(command, input=image, capture_output=True, check=False)
    if done.returncode != 0:
        raise ended_error(f"a fresh process with {bundle.name}", done.returncode, done.stderr)
    return decode(ColdStart, {"processes": 1, **json.loads(done.stdout)}, "fresh process")
