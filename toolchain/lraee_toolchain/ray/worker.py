"""The actor of Ray Data: opens its source and its model once, then computes one shard after the other.

An error of this project travels in the report, and not as an exception: Ray would wrap it, and print it once for each
retry. An exception of any other kind, or the death of the process, is Ray's business, which runs the shard again.
"""

from __future__ import annotations

import os
import time
from typing import Any

from lraee.bundle.folder import Bundle
from lraee.errors import BundleError, DataError, LraeeError
from lraee_toolchain.ray.answers import Classify, Embed, Rows, Work
from lraee_toolchain.ray.config import Job, ShardReport
from lraee_toolchain.ray.items import Source
from lraee_toolchain.ray.shards import counted_try, is_finished, shard_at, write_shard
from lraee_toolchain.ray.sources import open_source


class ShardWorker:
    """Computes shards by their numbers; Ray makes one in each worker process."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._failed = ""
        try:
            self._source = open_same_source(job)
            self._work = make_work(job)
        except LraeeError as error:
            self._failed = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Compute the shards of a batch, of which there is one.

        Args:
            batch: the column ``shard``.

        Returns:
            The fields of `ShardReport` as columns, one row for each shard.
        """
        reports = [self._reported(int(number)) for number in batch["shard"]]
        return {name: [getattr(report, name) for report in reports] for name in ShardReport.__slots__}

    def _reported(self, number: int) -> ShardReport:
        error = self._failed
        if not error:
            try:
                return compute_shard(self._job, self._source, self._work, number)
            except LraeeError as failure:
                error = str(failure)
        return ShardReport(
            shard=number,
            images=0,
            damaged=0,
            began=time.time(),
            seconds=0.0,
            cpu_seconds=0.0,
            read_bytes=0,
            written_bytes=0,
            worker=os.getpid(),
            error=error,
        )


def compute_shard(job: Job, source: Source, work: Work, number: int) -> ShardReport:
    """Compute one shard and write it, unless a worker that died afterwards has done so.

    Raises:
        ExportError: it cannot be written, or worker after worker died in it.
    """
    began, since, cpu_since = time.time(), time.perf_counter(), time.process_time()
    shard = shard_at(number, len(source), job.settings.shard_size)
    images = shard.stop - shard.start
    rows = Rows(source.items(shard.start, shard.stop), work.preprocessing, job.settings.reading)
    written = 0
    if not is_finished(shard, job.out, job.key):
        with counted_try(shard, job.out):
            table, shapes = work.table(rows)
            written = write_shard(table, shard, job.out, job.key, shapes)
    return ShardReport(
        shard=number,
        images=images,
        damaged=len(rows.errors) - len(rows.readable),
        began=began,
        seconds=time.perf_counter() - since,
        cpu_seconds=time.process_time() - cpu_since,
        read_bytes=rows.read_bytes,
        written_bytes=written,
        worker=os.getpid(),
    )


def make_work(job: Job) -> Work:
    """Load what the kind of run needs, in the process that will use it.

    Raises:
        BundleError: the bundle is not the one that the run began with, or is damaged.
    """
    found = Bundle(job.bundle).manifest_sha256
    if found != job.bundle_sha256:
        raise BundleError(
            f"the bundle {job.bundle} has changed since the run began: its manifest has SHA-256 {found[:12]}…, wanted "
            f"{job.bundle_sha256[:12]}…; start the run again, with another output folder"
        )
    if job.kind == "classify":
        return Classify(job)
    if job.kind == "embed":
        return Embed(job)
    from lraee_toolchain.ray.extraction import Extract  # torch, which the others do without

    return Extract(job)


def open_same_source(job: Job) -> Source:
    """Open the images, and refuse others than the run began with.

    Raises:
        DataError: they differ, or cannot be opened here.
    """
    source = open_source(job.images, job.settings)
    if source.fingerprint != job.fingerprint:
        raise DataError(f"{job.images} has changed since the run began; start it again, with another output folder")
    return source
