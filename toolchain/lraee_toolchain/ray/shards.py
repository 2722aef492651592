"""Cuts a list of images into shards, and writes each as one Parquet file, whole or not at all."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lraee.errors import ExportError
from lraee_toolchain.durable import sync, writing

METADATA = b"lraee"
"""Key of what a file says about itself, as JSON, in the metadata of its schema."""

WRITING = ".writing-"
"""Files that begin so are not finished."""

REPEATED = ["error", "label", "schedule", "top_labels.list.element"]
"""Columns whose values repeat. A dictionary of the others, such as arrays of floats, would be larger than they are."""

TRIES = 5
"""How many workers may die in one shard before the run ends; an image that kills its worker would kill them all."""

ADVICE = "give another output folder"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Consecutive images of a source."""

    number: int
    """Counted from 0."""
    start: int
    """Position of its first image."""
    stop: int
    """Position after its last image."""

    @property
    def file_name(self) -> str:
        """Name of its file; names sort like numbers up to a million shards."""
        return f"shard-{self.number:06d}.parquet"


def shard_count(images: int, shard_size: int) -> int:
    """Count the shards of so many images.

    >>> shard_count(2049, 1024)
    3
    """
    return -(-images // shard_size)


def shard_at(number: int, images: int, shard_size: int) -> Shard:
    """Give one shard; all have the same size but for the last.

    >>> shard_at(2, 2049, 1024)
    Shard(number=2, start=2048, stop=2049)
    """
    return Shard(number=number, start=number * shard_size, stop=min((number + 1) * shard_size, images))


def write_shard(table: Any, shard: Shard, folder: Path, key: str, shapes: dict[str, list[int]]) -> int:
    """Write a shard under another name, sync it and rename it; a process that dies leaves nothing under its name.

    Args:
        table: one row for each image.
        shard: that it is.
        folder: of the output.
        key: of the run.
        shapes: of the arrays in columns of lists.

    Returns:
        Size of the file in bytes.

    Raises:
        ExportError: there is no room, or no permission.
    """
    about = {"key": key, **asdict(shard), "shapes": shapes}
    table = table.replace_schema_metadata({METADATA: json.dumps(about).encode()})
    half = folder / f"{WRITING}{shard.number:06d}-{uuid.uuid4().hex[:12]}"
    with writing(f"shard {shard.number}", folder, ADVICE):
        try:
            pq.write_table(table, half, compression="zstd", use_dictionary=REPEATED, write_page_checksum=True)
            sync(half)
            size = half.stat().st_size
            os.replace(half, folder / shard.file_name)
            sync(folder)
        finally:
            half.unlink(missing_ok=True)
    return size


@contextmanager
def counted_try(shard: Shard, folder: Path) -> Iterator[None]:
    """Note that a worker computes a shard; the note stays where the worker dies, until the next run begins.

    Raises:
        ExportError: so many died in it that another would die too, or the note cannot be written.
    """
    note = folder / f"{WRITING}{shard.number:06d}-tries"
    with writing(f"shard {shard.number}", folder, ADVICE), note.open("ab") as file:
        died = file.tell()
        file.write(b".")
    if died >= TRIES:
        raise ExportError(
            f"{died} workers died in images {shard.start} to {shard.stop - 1}, perhaps for want of memory or by one "
            "image; give fewer workers or smaller shards, or take the image out"
        )
    try:
        yield
    finally:
        note.unlink(missing_ok=True)


def is_finished(shard: Shard, folder: Path, key: str) -> bool:
    """Tell whether a shard's file is there, readable to its end, and of this run."""
    path = folder / shard.file_name
    try:
        schema = pq.read_schema(path)
        rows = pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException):
        return False
    about = about_of(schema)
    mine = {"key": key, **asdict(shard)}
    return rows == shard.stop - shard.start and {name: about.get(name) for name in mine} == mine


def about_of(schema: Any) -> dict[str, Any]:
    """Read what a shard says about itself; empty for other files."""
    content = (schema.metadata or {}).get(METADATA)
    about: dict[str, Any] = json.loads(content) if content else {}
    return about
