"""What to measure, and the command that measures it again."""

from __future__ import annotations

import dataclasses
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lraee_benchmarks.results.conditions import Scenario
from lraee_benchmarks.rows.baselines import Baseline


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkConfig:
    """What to measure, and how to measure it."""

    bundle: str
    """A bundle's folder, or ``reference``."""
    images: str | None = None
    """Folder, zip, or the name of shipped images; None takes those that suit the bundle."""
    image_count: int = 256
    """Images held in memory; rounds go through them in turn."""
    threads: int | None = None
    """Cores used inside one operator; None takes all."""
    thread_pool: Literal["session", "global"] = "session"
    """``session`` is what `lraee.load` does by default. ``global`` may be chosen once in a process, before any session
    is made; its threads spin while they wait for work."""
    scenario: Scenario = "single-stream"
    batch: int = 1
    policies: tuple[str, ...] = ()
    """Specs of the chain's rows besides full depth; none takes every operating point and every exit."""
    baselines: tuple[Baseline, ...] | None = None
    """None takes those that are there."""
    floor: bool = False
    """Also measure the lower bounds: the GEMMs alone, and one read of the weights."""
    parts: bool = False
    """Also time every part of the tower."""
    energy: bool = True
    """Also measure energy, if the device has a meter and the rows share a process."""
    trace: Path | None = None
    """Write a trace of some images there."""
    isolate: bool | None = None
    """Each row in a process of its own; None does so when a baseline brings threads of its own."""
    accuracy: str | None = None
    """Labelled, as `images`; None measures no accuracy."""
    labels: Path | None = None
    """A label file that maps folders of `accuracy` to labels of the bundle."""
    unreadable: Literal["refuse", "skip"] = "refuse"
    """What happens to images that cannot be decoded."""
    repeats: int | None = None
    """Measured rounds; None goes by `min_seconds`."""
    min_seconds: float = 20.0
    warmup_rounds: int = 5
    launches: int = 1
    """Processes that the rounds are divided among, one after the other; 1 measures in this process."""
    cold_starts: int = 5
    """Fresh processes; 0 measures no cold start."""
    seed: int = 0


def command_line(config: BenchmarkConfig) -> str:
    """Spell the command that repeats a measurement: the launches, and every option that is not at its default.

    >>> command_line(BenchmarkConfig(bundle="reference", threads=4, policies=("full",)))
    'lraee-bench reference --threads 4 --launches 1 --policy full'
    """
    words = ["lraee-bench", config.bundle]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        is_default = value == field.default and field.name != "launches"  # whose default the command does not share
        if field.name in {"bundle", "policies", "baselines", "floor", "parts", "energy", "isolate"} or is_default:
            continue
        words += [f"--{_OPTION_NAMES.get(field.name, field.name).replace('_', '-')}", str(value)]
    for spec in config.policies:
        words += ["--policy", spec]
    if config.baselines is not None:
        words += ["--baselines", ",".join(config.baselines) or "none"]
    words += ["--floor"] if config.floor else []
    words += ["--parts"] if config.parts else []
    words += [] if config.energy else ["--no-energy"]
    words += [] if config.isolate is None else ["--isolate" if config.isolate else "--no-isolate"]
    return shlex.join(words)


_OPTION_NAMES = {"warmup_rounds": "warmup"}
