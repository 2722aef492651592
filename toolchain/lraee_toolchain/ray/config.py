"""What a run is told, what a worker is told, and what both report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from lraee.checks import check_count
from lraee.errors import SettingsError
from lraee.reading import PLAIN_READING, Reading

Kind: TypeAlias = Literal["classify", "embed", "features"]
"""What is computed of each image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How images are read, computed and divided among workers.

    Raises:
        SettingsError: a field is out of its range.
    """

    workers: int | None = None
    """Processes that run at the same time; None takes one for each core, of this machine or of the cluster."""
    threads: int | None = None
    """Threads of each worker; None divides the cores of this machine among the workers, or takes 1 on a cluster."""
    shard_size: int = 1024
    """Images of one shard, which is one file of the output."""
    batch_size: int = 16
    """Images that run together."""
    policy: str | None = None
    """Decides where images leave, as `lraee.policies.spec.parse_policy` reads it. None takes the bundle's operating
    point to classify, and full depth to embed, as `lraee.Model.embed` does. Features are always of full depth."""
    top: int = 5
    """Labels that are listed for each image that is classified."""
    token_blocks: tuple[int, ...] = ()
    """Blocks, counted from 1, after which `features` also keeps all tokens, for heads that read them."""
    image_column: str = "image"
    """Column of a Parquet file that holds encoded images; ``image.bytes`` is the field ``bytes`` of ``image``."""
    name_column: str = "name"
    """Column of a Parquet file that holds the images' names."""
    reading: Reading = field(default=PLAIN_READING)
    """How images become pixels."""
    overwrite: bool = False
    """Whether the output of another run is removed first."""
    address: str | None = None
    """Address of a Ray cluster; None starts one on this machine and stops it at the end."""

    def __post_init__(self) -> None:
        for name in ("shard_size", "batch_size", "top"):
            check_count(name, getattr(self, name))
        for name in ("workers", "threads"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        for block in self.token_blocks:
            check_count("token_blocks", block)
        if list(self.token_blocks) != sorted(set(self.token_blocks)):
            raise SettingsError(f"token_blocks is {self.token_blocks}, wanted different blocks in rising order")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every worker of a run is told."""

    kind: Kind
    bundle: Path
    """Absolute path of the bundle."""
    bundle_sha256: str
    """Hash of its manifest, which holds the hashes of all its files."""
    images: Path
    """Absolute path of the folder, zip or Parquet."""
    fingerprint: str
    """Of the list of images: a worker that lists others refuses to go on."""
    out: Path
    """Absolute path of the output folder."""
    key: str
    """Of the run; every shard carries it."""
    threads: int
    """Of each worker."""
    settings: Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReport:
    """What a worker says of one shard."""

    shard: int
    """Its number, counted from 0."""
    images: int
    damaged: int
    """Images that could not be read."""
    began: float
    """When the worker began with it, in seconds since 1970."""
    seconds: float
    """From its first image to its finished file."""
    cpu_seconds: float
    """Of all threads of the worker meanwhile."""
    read_bytes: int
    """Size of the encoded images."""
    written_bytes: int
    """Size of the file."""
    worker: int
    """Process id of the worker."""
    error: str = ""
    """Why the shard, and with it the run, could not be finished; else empty."""


OnShard: TypeAlias = Callable[[ShardReport], object]
"""Is told of each finished shard."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """What a run did."""

    out: str
    """The output folder."""
    images: int
    """In all shards."""
    shards: int
    found: int
    """Shards that an earlier run had finished."""
    computed: int
    """Images that this run computed."""
    damaged: int
    """Images, among those of this run, that could not be read; the column ``error`` says why."""
    workers: int
    threads: int
    """Of each worker."""
    total_seconds: float
    """Of the whole run, with the start of the cluster and of its workers."""
    seconds: float
    """From the beginning of the first shard to the end of the last one."""
    worker_seconds: float
    """Of all workers in their shards, added up."""
    cpu_seconds: float
    """Of all threads of all workers in their shards."""
    read_bytes: int
    written_bytes: int
