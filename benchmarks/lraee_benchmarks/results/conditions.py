"""What a report says of the circumstances: device, bundle, settings, start-up, engines, and what disturbed the run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scenario = Literal["single-stream", "offline", "deadline"]
"""- ``single-stream``: one batch after the other; a sample is one batch.
- ``offline``: all images are there at once; a sample is all of them. The chain refills its batches from those that wait
  (`Model.classify_stream`), one graph takes them batch by batch.
- ``deadline``: as ``single-stream``, under deadlines.

After the scenarios of MLPerf Inference (Reddi et al., arXiv 1911.02549).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """The machine that the measurement ran on."""

    model: str
    """The board, or the CPU's name."""
    machine: str
    """Architecture, such as ``x86_64`` or ``aarch64``."""
    system: str
    """Kernel and its release."""
    cores: int
    """Cores that the process may run on."""
    memory_bytes: int | None
    int8_features: tuple[str, ...]
    """Of VNNI, AMX, dotprod, i8mm, those that the CPU has."""
    governor: str | None
    """Frequency governor of the first core, such as ``performance``; None where the system does not say."""
    load_average: float | None
    """Runnable processes over the minute before the start, other programs included."""
    celsius_before: float | None
    celsius_after: float | None
    python: str
    numpy: str
    onnxruntime: str
    lraee: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleSummary:
    """The bundle that was measured."""

    name: str
    model: str
    weights: str
    fingerprint: str
    precision: str
    quantizer: str | None
    blocks: int
    labels: int
    size_bytes: int
    full_flops: int
    """Of one image at full depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of the measurement."""

    command: str
    """Repeats the measurement."""
    threads: int
    thread_pool: Literal["session", "global"]
    isolated: bool
    """Whether each row ran in a process of its own; a turn is then one run that is not timed and one that is."""
    launches: int
    """Processes that the rounds were divided among, one after the other; intervals are over several."""
    scenario: Scenario
    batch: int
    """Images that run together."""
    images_per_sample: int
    """`batch`, or all images in the offline scenario."""
    warmup_rounds: int
    rounds: int
    images: int
    """Different images among those measured."""
    image_source: str
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """Decoding and resizing of one image, which is in no row's latency."""

    images: int
    decode_p50_ms: float
    """Reading and decoding alone."""
    resize_p50_ms: float
    """Resizing and cropping alone."""
    p50_ms: float
    p90_ms: float
    mean_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """Medians over fresh processes; the files are in the system's cache from the second on.

    The image runs to full depth and past every exit of the default operating point, so that all parts are loaded.
    """

    processes: int
    import_ms: float
    """``import lraee``."""
    load_ms: float
    """``lraee.load``."""
    first_image_ms: float
    """Decoding, preprocessing, making the sessions, and the answer."""
    to_first_answer_ms: float
    """From the start of the interpreter to the answer."""
    rss_bytes: int
    """Resident memory after some images more."""
    peak_rss_bytes: int
    private_bytes: int | None
    """Resident memory that no other process shares; memory-mapped weights are not in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What runs a row, and how it was set; every row does the same job, from uint8 pixels to label probabilities."""

    name: str
    """The row's name; ``chain`` for all rows that run the parts one by one."""
    engine: str
    version: str
    precision: str
    threads: int
    takes: str
    """What the engine is given; where it is not uint8 pixels, turning them into it is in the time."""
    options: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """Whether the device was left alone while the rounds ran; None where the system does not say."""

    stable: bool
    """No reason speaks against it."""
    reasons: tuple[str, ...]
    seconds: float
    others_share: float | None
    """Share of the time of the cores in use that went to other processes."""
    steal_share: float | None
    """Share that the hypervisor gave to other virtual machines."""
    drift: float | None
    """Median of the full chain over the last third of the rounds, over that of the first third."""
    lowest_mhz: float | None
    """Of the first core, looked at about once a second."""
    highest_mhz: float | None
    throttled: tuple[str, ...]
    """What a Raspberry Pi's firmware reports to have happened during the measurement."""
