"""One run from beginning to end: list the images, find what is missing, hand shards to workers, collect reports."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lraee.bundle.folder import Bundle, find_bundle
from lraee.bundle.manifest import Manifest
from lraee.errors import ExportError, PolicyError, SettingsError
from lraee.ort.threads import usable_cores
from lraee.policies.base import bind, is_anytime
from lraee.policies.spec import parse_policy
from lraee_toolchain.ray.cluster import cluster
from lraee_toolchain.ray.config import Job, Kind, OnShard, RunSummary, Settings, ShardReport
from lraee_toolchain.ray.output import RunRecord, opened_output, record_of
from lraee_toolchain.ray.shards import Shard
from lraee_toolchain.ray.sources import open_source
from lraee_toolchain.ray.worker import ShardWorker

MOST_TASKS = 4096
"""Tasks that a run is divided into; with more shards, a task has several, and reports each when it is finished."""


@dataclass(slots=True)
class _Totals:
    """Adds up what workers report."""

    computed: int = 0
    damaged: int = 0
    worker_seconds: float = 0.0
    cpu_seconds: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    reported: set[int] = field(default_factory=set)
    first: float = math.inf
    last: float = -math.inf

    @property
    def seconds(self) -> float:
        """From the beginning of the first shard to the end of the last one."""
        return max(self.last - self.first, 0.0)

    def add(self, report: ShardReport) -> None:
        self.computed += report.images
        self.damaged += report.damaged
        self.worker_seconds += report.seconds
        self.cpu_seconds += report.cpu_seconds
        self.read_bytes += report.read_bytes
        self.written_bytes += report.written_bytes
        self.reported.add(report.shard)
        self.first = min(self.first, report.began)
        self.last = max(self.last, report.began + report.seconds)


def run(kind: Kind, bundle: str | Path, images: Path, out: Path, settings: Settings, on_shard: OnShard) -> RunSummary:
    """Compute every shard that is missing; arguments and errors as `lraee_toolchain.ray.api.classify` has them."""
    began = time.perf_counter()
    job, record = prepare(kind, bundle, images, out, settings)
    workers, totals = workers_of(settings), _Totals()
    with opened_output(job.out, record, overwrite=settings.overwrite) as missing:
        if missing:
            with cluster(job.out, cores=workers * job.threads, address=settings.address):
                workers = fitting_workers(workers, job.threads, len(missing))
                for report in computed(job, missing, workers):
                    totals.add(report)
                    on_shard(report)
    if lost := {shard.number for shard in missing} - totals.reported:
        raise ExportError(f"{len(lost)} shards were not computed, such as {min(lost)}; run it again")
    return RunSummary(
        out=str(job.out),
        images=record.images,
        shards=record.shards,
        found=record.shards - len(missing),
        computed=totals.computed,
        damaged=totals.damaged,
        workers=workers,
        threads=job.threads,
        total_seconds=time.perf_counter() - began,
        seconds=totals.seconds,
        worker_seconds=totals.worker_seconds,
        cpu_seconds=totals.cpu_seconds,
        read_bytes=totals.read_bytes,
        written_bytes=totals.written_bytes,
    )


def prepare(kind: Kind, bundle: str | Path, images: Path, out: Path, settings: Settings) -> tuple[Job, RunRecord]:
    """Open bundle and images, check the settings, and describe the run.

    Raises:
        DataError: there are no images.
        BundleError: the bundle cannot be used.
        PolicyError: it lacks what the policy asks for.
        SettingsError: a setting does not fit it.
    """
    opened = Bundle(find_bundle(bundle))
    check_settings(kind, opened.manifest, settings)
    images, out = Path(images).absolute(), Path(out).absolute()
    source = open_source(images, settings)
    record = record_of(kind, opened.manifest_sha256, len(source), source.fingerprint, settings)
    job = Job(
        kind=kind,
        bundle=opened.place,
        bundle_sha256=opened.manifest_sha256,
        images=images,
        fingerprint=record.fingerprint,
        out=out,
        key=record.key,
        threads=threads_of(settings),
        settings=settings,
    )
    return job, record


def check_settings(kind: Kind, manifest: Manifest, settings: Settings) -> None:
    """Refuse settings that do not fit the bundle, before a cluster is started.

    Raises:
        PolicyError: the bundle lacks what the policy asks for, or it has a deadline.
        SettingsError: there is no such block.
    """
    if kind != "features" and settings.policy is not None:
        policy = parse_policy(settings.policy)
        if is_anytime(bind(policy, manifest)):
            raise PolicyError("images of a long run have no common start for a deadline; give a policy without one")
    if kind == "features" and settings.token_blocks and settings.token_blocks[-1] >= manifest.tower.blocks:
        raise SettingsError(
            f"token_blocks names block {settings.token_blocks[-1]}, wanted 1 to {manifest.tower.blocks - 1}: after the "
            "last block no exit stands"
        )


def workers_of(settings: Settings) -> int:
    """Count the workers that were asked for; by default one for each core here, and 0 on a cluster: all that fit."""
    if settings.workers is not None or settings.address is not None:
        return settings.workers or 0
    return max(1, usable_cores() // (settings.threads or 1))


def threads_of(settings: Settings) -> int:
    """Count the threads of each worker: together not more than cores, so that workers do not wait for each other."""
    if settings.threads is not None or settings.address is not None:
        return settings.threads or 1
    return max(1, usable_cores() // workers_of(settings))


def fitting_workers(workers: int, threads: int, shards: int) -> int:
    """Choose how many workers to start in the cluster that runs; none is without a shard.

    Args:
        workers: that were asked for, or 0 for as many as fit.
        threads: of each.
        shards: to compute.

    Raises:
        ExportError: the cluster has too few CPUs.
    """
    import ray

    fitting = int(ray.cluster_resources().get("CPU", 0)) // threads
    if max(workers, 1) > fitting:
        raise ExportError(
            f"the Ray cluster has CPUs for {fitting} workers of {threads} threads, wanted {max(workers, 1)}; ask for "
            "fewer"
        )
    return min(workers or fitting, shards)


def computed(job: Job, shards: Sequence[Shard], workers: int) -> Iterator[ShardReport]:
    """Hand shards to workers, and yield what they report as soon as each is finished.

    Ray Data starts a worker that died again, and its task with it, as often as it dies; `worker.compute_shard` counts.

    Raises:
        ExportError: a shard cannot be finished, since a file is missing or damaged, or workers die in it.
    """
    import ray
    from ray.exceptions import RayError

    numbers = [{"shard": shard.number} for shard in shards]
    reports = ray.data.from_items(numbers, override_num_blocks=min(len(numbers), MOST_TASKS)).map_batches(
        ShardWorker,
        fn_constructor_args=(job,),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        num_cpus=job.threads,
    )
    try:
        for report in _reports(reports.iter_batches(batch_size=1, prefetch_batches=0)):
            if report.error:
                raise ExportError(f"shard {report.shard} was not computed: {report.error}")
            yield report
    except RayError as error:
        raise ExportError(
            f"the run ended: {' '.join(str(error).split())[:500]}; run it again, it goes on from the shards that are "
            "finished"
        ) from error


def _reports(batches: Iterable[dict[str, Any]]) -> Iterator[ShardReport]:
    """Turn what Ray Data gives into reports."""
    for batch in batches:
        rows = zip(*(batch[name].tolist() for name in ShardReport.__slots__), strict=True)
        for row in rows:
            yield ShardReport(**dict(zip(ShardReport.__slots__, row, strict=True)))
