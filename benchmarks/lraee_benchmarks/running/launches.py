"""A measurement in several launches: processes started one after the other, each with its share of the rounds.

Where memory lies, and how threads fall on cores, is settled when a process starts: two runs of one program differ by
more than the rounds of one run tell. Intervals over launches say how the next run will come out.

    python -m lraee_benchmarks.running.launches FOLDER     # one launch; how this module starts itself
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.strict_json import decode, encode
from lraee.errors import BundleError, LraeeError
from lraee.loading import load
from lraee.model import Model
from lraee.ort.sessions import global_thread_pool_is_set, use_global_thread_pool
from lraee_benchmarks.images import Sample
from lraee_benchmarks.output_files import temporary_folder, temporary_room
from lraee_benchmarks.results.model import Peer, RowKind
from lraee_benchmarks.rows.onnxruntime_row import check_threads_alike
from lraee_benchmarks.rows.variants import Outcome
from lraee_benchmarks.running.in_process import LocalRows, RowPlan, Rows
from lraee_benchmarks.running.isolated import IsolatedRows
from lraee_benchmarks.running.rounds import Measured, Plan, interleave


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchPlan:
    """What one launch does."""

    bundle: str
    threads: int
    thread_pool: str
    isolated: bool
    rows: RowPlan
    plan: Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchRows:
    """What one launch tells beside its numbers."""

    names: tuple[tuple[str, RowKind], ...]
    peers: tuple[Peer, ...]
    restless: tuple[str, ...]
    failed: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Launched:
    """All launches together; fields as in `Rows`."""

    names: list[tuple[str, RowKind]]
    peers: tuple[Peer, ...]
    restless: frozenset[str]
    failed: Mapping[str, str]
    outcomes: list[Mapping[int, Outcome]]
    measured: Measured


def set_pool(model: Model) -> None:
    """Set the process-wide pool, if the model is to use it and it is not set yet; before any session is made."""
    if model.settings.thread_pool == "global" and not global_thread_pool_is_set():
        use_global_thread_pool(model.threads)


@contextmanager
def opened_rows(
    rows: RowPlan, model: Model, sample: Sample, *, isolated: bool, on_share: Callable[[float], None] | None = None
) -> Iterator[Rows]:
    """Rows in this process, with all sessions made, or in workers, which end with the block.

    Args:
        rows: which.
        model: in this process.
        sample: the batches.
        isolated: a process for each row.
        on_share: called after each worker has started, with the share of those that have.
    """
    if isolated:
        with IsolatedRows(rows, model, sample.batches, on_share=on_share) as workers:
            yield workers
        return
    wanted = model.threads
    set_pool(model)
    model.warm()
    check_threads_alike("full", model.threads, wanted)
    yield LocalRows(rows, model, sample.batches)


def measure_in_launches(launch: LaunchPlan, sample: Sample, count: int, on_share: Callable[[float], None]) -> Launched:
    """Start the launches and put together what they give.

    Args:
        launch: what each does; its plan has each one's share of the rounds.
        sample: the batches.
        count: launches.
        on_share: called after each with the share that is done.

    Raises:
        BundleError: a launch failed.
        DataError: temporary files cannot be written.
    """
    failed: dict[str, str] = {}
    found: list[tuple[LaunchRows, dict[str, np.ndarray]]] = []
    with temporary_folder() as folder:
        with temporary_room(folder):
            np.save(folder / "batches.npy", np.stack(sample.batches))
        for number in range(count):
            start = number * len(sample.batches) // count  # launches begin with different images
            plan = {**encode(launch.plan), "seed": launch.plan.seed + number, "first_batch": start}
            peers = tuple(peer for peer in launch.rows.peers if peer not in failed)  # none is tried a second time
            rows = encode(dataclasses.replace(launch.rows, peers=peers))
            with temporary_room(folder):
                launched = json.dumps({**encode(launch), "plan": plan, "rows": rows})
                (folder / "launch.json").write_text(launched, "utf-8")
            found.append(_launch(folder))
            failed |= found[-1][0].failed
            on_share((number + 1) / count)
    first, _ = found[0]
    names = [name for name in first.names if name[0] not in failed]
    arrays = [numbers for _, numbers in found]
    outcomes: list[Mapping[int, Outcome]] = []
    for name in names:
        known: dict[int, Outcome] = {}
        for told, numbers in found:
            row = told.names.index(name)
            fields = [numbers[f"{field}_{row}"] for field in ("probabilities", "exit_block", "early", "flops")]
            known |= {int(batch): Outcome(*values) for batch, *values in zip(numbers["batches"], *fields, strict=True)}
        outcomes.append(known)
    rounds = [len(numbers["samples_ms"]) for numbers in arrays]
    return Launched(
        names=names,
        peers=tuple(peer for peer in first.peers if peer.name not in failed),
        restless=frozenset(name for told, _ in found for name in told.restless) - failed.keys(),
        failed=failed,
        outcomes=outcomes,
        measured=Measured(
            samples_ms=np.concatenate(
                [selected_columns(told, names, numbers["samples_ms"]) for told, numbers in found]
            ),
            batch_of_round=np.concatenate([numbers["batch_of_round"] for numbers in arrays]),
            launches=np.repeat(np.arange(count), rounds),
        ),
    )


def selected_columns(
    told: LaunchRows, names: Sequence[tuple[str, RowKind]], samples_ms: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The columns of some rows and, after them, of the floor's parts, from (rounds, columns) of a launch."""
    floor = range(len(told.names), samples_ms.shape[1])
    columns: NDArray[np.float64] = samples_ms[:, [*(told.names.index(name) for name in names), *floor]]
    return columns


def _launch(folder: Path) -> tuple[LaunchRows, dict[str, np.ndarray]]:
    command = [sys.executable, "-P", "-m", "lraee_benchmarks.running.launches", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BundleError(f"a launch ended with status {done.returncode}: {last[0]}")
    rows = decode(LaunchRows, json.loads((folder / "rows.json").read_text("utf-8")), "launch")
    with np.load(folder / "numbers.npz", allow_pickle=False) as numbers:
        return rows, dict(numbers)


def main() -> None:
    """One launch."""
    folder = Path(sys.argv[1])
    launch = decode(LaunchPlan, json.loads((folder / "launch.json").read_text("utf-8")), "launch")
    model = load(launch.bundle, threads=launch.threads, thread_pool=launch.thread_pool)  # type: ignore[arg-type]
    check_threads_alike("full", model.threads, launch.threads)
    batches = tuple(np.load(folder / "batches.npy"))
    sample = Sample(source="", batches=batches, first_image=b"", preprocessing_ms=None)
    with opened_rows(launch.rows, model, sample, isolated=launch.isolated) as rows:
        measured = interleave(rows.measures, len(batches), launch.plan)
        outcomes = rows.outcomes()
        told = LaunchRows(
            names=tuple(rows.names),
            peers=tuple(rows.peers),
            restless=tuple(sorted(rows.restless)),
            failed=rows.failed,
        )
    there = sorted({int(batch) for batch in measured.batch_of_round})
    arrays = {
        f"{field}_{row}": np.stack([getattr(outcome[batch], field) for batch in there])
        for row, outcome in enumerate(outcomes)
        for field in ("probabilities", "exit_block", "early", "flops")
    }
    with temporary_room(folder):
        (folder / "rows.json").write_text(json.dumps(encode(told)), "utf-8")
        np.savez(
            folder / "numbers.npz",
            allow_pickle=False,
            samples_ms=measured.samples_ms,
            batch_of_round=measured.batch_of_round,
            batches=np.array(there),
            **arrays,
        )


if __name__ == "__main__":
    try:
        main()
    except LraeeError as error:
        sys.exit(str(error))
