"""Reads features back as the arrays that exits, gates and thresholds are fitted on."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lraee.errors import DataError
from lraee_toolchain.early_exit.features import Features, feature_writer, load_features
from lraee_toolchain.ray.output import RunRecord, read_record
from lraee_toolchain.ray.shards import about_of, is_finished


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadFeatures:
    """Features of the images that could be read."""

    features: Features
    """As `lraee_toolchain.early_exit.features.load_features` gives them."""
    positions: NDArray[np.int64]
    """(images,) int64: place of each among all images of the run."""
    names: tuple[str, ...]
    """Name of each."""
    damaged: tuple[tuple[str, str], ...]
    """Name and error of each image that could not be read."""


def read_features(out: Path, folder: Path) -> ReadFeatures:
    """Read shards one after the other; arguments and errors as `lraee_toolchain.ray.api.read_features` has them."""
    record = _finished(out)
    positions: list[int] = []
    names: list[str] = []
    damaged: list[tuple[str, str]] = []
    for number in range(record.shards):
        table = pq.read_table(out / record.shard(number).file_name, columns=["position", "name", "error"])
        for position, name, error in zip(*(column.to_pylist() for column in table.columns), strict=True):
            if error is None:
                positions.append(position)
                names.append(name)
            else:
                damaged.append((name, error))
    if not positions:
        raise DataError(f"{out} has no image that could be read, such as: {damaged[0][1]}")
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        write = feature_writer(folder, len(positions), opened)
        start = 0
        for number in range(record.shards):
            arrays = _arrays(out / record.shard(number).file_name)
            if arrays:
                write(start, **arrays)
                start += len(next(iter(arrays.values())))
    return ReadFeatures(
        features=load_features(folder),
        positions=np.array(positions, np.int64),
        names=tuple(names),
        damaged=tuple(damaged),
    )


def _finished(out: Path) -> RunRecord:
    """Read the record of a finished run of features.

    Raises:
        DataError: it is of another kind, or not finished.
    """
    record = read_record(out)
    if record is None or record.kind != "features":
        what = "no run" if record is None else f"the output of {record.kind}"
        raise DataError(f"{out} holds {what}, wanted that of features")
    for number in range(record.shards):
        if not is_finished(shard := record.shard(number), out, record.key):
            raise DataError(f"{out} lacks {shard.file_name}; run the same command again, it goes on from the others")
    return record


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read the arrays of a shard, (readable images, ...) each; none where no image could be read."""
    table = pq.read_table(path)
    shapes = about_of(table.schema)["shapes"]
    there = table.column("error").is_null()
    arrays = {}
    for name, shape in shapes.items():
        values = table.column(name).filter(there).combine_chunks()
        arrays[name] = values.flatten().to_numpy(zero_copy_only=False).reshape(-1, *shape)
    return arrays
