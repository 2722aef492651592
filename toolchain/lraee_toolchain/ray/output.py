"""The output folder: what run it belongs to, which shards are finished, and that one run at a time writes there.

Names that begin with a dot or an underscore are left out by what reads a folder of Parquet files as one table.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lraee.errors import DataError, ExportError
from lraee_toolchain.durable import sync, writing
from lraee_toolchain.ray.config import Kind, Settings
from lraee_toolchain.ray.shards import ADVICE, WRITING, Shard, is_finished, shard_at, shard_count

RECORD = "_run.json"
LOCK = ".lock"
FORMAT = "lraee-ray/1"

SET_BY_CALLER = ("workers", "threads", "overwrite", "address")
"""Settings that change nothing in the output."""

ONLY_FOR: Mapping[str, tuple[Kind, ...]] = {
    "policy": ("classify", "embed"),
    "top": ("classify",),
    "token_blocks": ("features",),
    "batch_size": ("classify", "embed"),
}
"""Settings that only some kinds of runs look at."""

OVERWRITE = "overwrite"
"""What `LraeeError.setting` says where it would let a run pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What an output was made from; a rerun goes on only where all of it is the same."""

    format: str
    kind: Kind
    bundle_sha256: str
    """Of the manifest."""
    images: int
    fingerprint: str
    """Of the source."""
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """Hash of the record: the first 16 hexadecimal digits of a SHA-256."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]

    @property
    def shards(self) -> int:
        """Count the shards."""
        return shard_count(self.images, self.settings["shard_size"])

    def shard(self, number: int) -> Shard:
        """Give one shard."""
        return shard_at(number, self.images, self.settings["shard_size"])


def record_of(kind: Kind, bundle_sha256: str, images: int, fingerprint: str, settings: Settings) -> RunRecord:
    """Collect what the output depends on."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(settings)))
    kept = {
        name: value
        for name, value in values.items()
        if name not in SET_BY_CALLER and kind in ONLY_FOR.get(name, (kind,))
    }
    return RunRecord(
        format=FORMAT,
        kind=kind,
        bundle_sha256=bundle_sha256,
        images=images,
        fingerprint=fingerprint,
        settings=kept,
    )


def read_record(folder: Path) -> RunRecord | None:
    """Read what run a folder belongs to; None where there is no run.

    Raises:
        DataError: the file was written by something else.
    """
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        return RunRecord(**json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} cannot be read as the record of a run ({error}); give another output folder", setting=OVERWRITE
        ) from error


@contextmanager
def opened_output(folder: Path, record: RunRecord, *, overwrite: bool) -> Iterator[list[Shard]]:
    """Make or check an output folder, lock it, remove what is half written, and give the shards that are missing.

    Args:
        folder: of the output.
        record: of this run.
        overwrite: remove the shards of another run; other files stay.

    Raises:
        DataError: the folder belongs to another run, or to none and has files.
        ExportError: another run writes there, or nothing can be written.
    """
    with writing("the output", folder, ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExportError(f"{folder} is in use by another run; wait for it, or {ADVICE}") from error
        remove_unfinished(folder)
        with writing("the output", folder, ADVICE):
            _claim(folder, record, overwrite=overwrite)
        shards = (record.shard(number) for number in range(record.shards))
        yield [shard for shard in shards if not is_finished(shard, folder, record.key)]
    finally:
        os.close(lock)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed workers were writing."""
    for stale in folder.glob(f"{WRITING}*"):
        if stale.is_dir():
            shutil.rmtree(stale, ignore_errors=True)
        else:
            stale.unlink(missing_ok=True)


def _claim(folder: Path, record: RunRecord, *, overwrite: bool) -> None:
    """Write the record of this run, or find that it is there."""
    if overwrite:
        (folder / RECORD).unlink(missing_ok=True)  # first: shards without it belong to no run
        for path in folder.glob("shard-*.parquet"):
            path.unlink()
    there = read_record(folder)
    if there is not None:
        if there != record:
            raise DataError(f"{folder} holds another run: {_difference(there, record)}; {ADVICE}", setting=OVERWRITE)
        return
    others = sorted(path.name for path in folder.iterdir() if path.name != LOCK)
    if others and not overwrite:
        raise DataError(f"{folder} holds {others[0]} and no {RECORD}, so no run goes on there; {ADVICE}")
    half = folder / f"{WRITING}record"
    half.write_text(json.dumps(asdict(record), indent=1), "utf-8")
    sync(half)
    os.replace(half, folder / RECORD)
    sync(folder)


def _difference(there: RunRecord, wanted: RunRecord) -> str:
    """Name the first thing in which two runs differ."""
    met, asked = asdict(there), asdict(wanted)
    for key in ("format", "kind", "bundle_sha256"):
        if met[key] != asked[key]:
            return f"its {key.replace('_', ' ')} is {met[key]}, wanted {asked[key]}"
    for name in sorted(met["settings"].keys() | asked["settings"].keys()):
        one, other = met["settings"].get(name), asked["settings"].get(name)
        if one != other:
            return f"its {name} is {one!r}, wanted {other!r}"
    if there.images != wanted.images:
        return f"its images were {there.images}, wanted {wanted.images}"
    return "its images have changed since it began"
