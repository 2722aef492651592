"""What an export decides about leaving early, and how it is described for the manifest."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from lraee.bundle.manifest import ExitInfo, OperatingPoint, Threshold
from lraee.bundle.strict_json import OPTIONAL
from lraee_exporters.graphs.exit import HeadInput
from lraee_toolchain.early_exit.exits import TrainedExit
from lraee_toolchain.early_exit.outcomes import Point
from lraee_toolchain.early_exit.task import ExitTask

ROUTING = "routing.json"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routing:
    """What an export decides about leaving early."""

    exits: tuple[TrainedExit, ...]
    """Where nothing is merged."""
    front: tuple[Point, ...]
    """Pareto front on the gating split; thresholds in the order of the exits of the point's schedule."""
    points: dict[str, Point]
    """Operating points by name."""
    candidates: tuple[TrainedExit, ...] = ()
    """All exits that were trained, of which `exits` were chosen."""
    merged: Mapping[str, tuple[TrainedExit, ...]] = field(default_factory=dict)
    """Exits under each merging schedule, by its name."""

    def exits_under(self, schedule: str | None) -> tuple[TrainedExit, ...]:
        """Give the exits that an operating point with this schedule has thresholds for."""
        return self.exits if schedule is None else self.merged[schedule]


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateHead:
    """The head that was found best after a block."""

    block: int
    reads: HeadInput


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRouting:
    """``routing.json``: the exits and operating points of the manifest, so that an export can resume from them."""

    exits: tuple[ExitInfo, ...] = ()
    points: tuple[OperatingPoint, ...] = ()
    merged: dict[str, tuple[ExitInfo, ...]] = field(default_factory=dict)
    """Exits under each merging schedule of the bundle, by its name."""
    candidates: tuple[CandidateHead, ...] = field(default=(), metadata={OPTIONAL: True})
    """All exits that were trained, for tables that fit them again."""


def exit_suffix(schedule: str | None) -> str:
    """End the names of the parts of exits under a schedule.

    >>> exit_suffix(None), exit_suffix("merged-24")
    ('', '_merged-24')
    """
    return "" if schedule is None else f"_{schedule}"


def without_unused(routing: Routing, *, exits: bool, kept: Collection[str] = ()) -> Routing:
    """Drop schedules that no operating point takes, and exits that none opens.

    Args:
        routing: exits and points.
        exits: whether to drop exits too, or only schedules.
        kept: schedules that stay in any case.
    """
    points = routing.points.values()
    taken = {*kept, *(point.schedule for point in points)}
    merged = {name: found for name, found in routing.merged.items() if name in taken}
    if len(merged) < len(routing.merged):
        front = tuple(point for point in routing.front if point.schedule in {None, *merged})
        routing = replace(routing, merged=merged, front=front)
    if not exits:
        return routing
    for schedule in (None, *merged):
        found = routing.exits_under(schedule)
        opened = [point.thresholds for point in points if point.schedule == schedule]
        used = [place for place in range(len(found)) if any(np.isfinite(values[place]) for values in opened)]
        if len(used) < len(found):
            routing = _with_exits(routing, schedule, used)
    return routing


def _with_exits(routing: Routing, schedule: str | None, used: Sequence[int]) -> Routing:
    """Keep some exits of a schedule, by position, and the points of the front that open no others."""

    def keep(point: Point) -> Point:
        if point.schedule != schedule:
            return point
        return replace(point, thresholds=tuple(point.thresholds[place] for place in used))

    def stays(point: Point) -> bool:
        gone = (value for place, value in enumerate(point.thresholds) if place not in used)
        return point.schedule != schedule or not any(map(math.isfinite, gone))

    kept = tuple(routing.exits_under(schedule)[place] for place in used)
    return replace(
        routing,
        exits=kept if schedule is None else routing.exits,
        merged=routing.merged if schedule is None else {**routing.merged, schedule: kept},
        front=tuple(keep(point) for point in routing.front if stays(point)),
        points={name: keep(point) for name, point in routing.points.items()},
    )


def saved_routing(
    task: ExitTask,
    routing: Routing,
    *,
    supervision: Literal["labels", "label-free"],
    information_to_noise: Mapping[int, float],
) -> SavedRouting:
    """Describe exits and points as the manifest does.

    Args:
        task: with random weights no accuracy is given.
        routing: exits and points.
        supervision: what heads learned from.
        information_to_noise: INR by block; empty at float precision.
    """

    def accuracy(value: float) -> float | None:
        return None if task.is_random else value

    ratios = {block: ratio for block, ratio in information_to_noise.items() if math.isfinite(ratio)}

    def exits(schedule: str | None) -> tuple[ExitInfo, ...]:
        return tuple(
            ExitInfo(
                block=trained.block,
                part=f"exit_{trained.block:02d}{exit_suffix(schedule)}",
                reads=trained.head.reads,
                supervision=supervision,
                temperature=trained.temperature,
                gate=trained.gate,
                information_to_noise=ratios.get(trained.block),
                accuracy=accuracy(trained.accuracy),
            )
            for trained in routing.exits_under(schedule)
        )

    points = tuple(
        OperatingPoint(
            name=name,
            thresholds=_thresholds(routing.exits_under(point.schedule), point),
            flops_saved=point.saved,
            accuracy=accuracy(point.accuracy),
            full_accuracy=accuracy(point.accuracy - point.difference),
            schedule=point.schedule,
        )
        for name, point in routing.points.items()
    )
    return SavedRouting(
        exits=exits(None),
        points=points,
        merged={name: exits(name) for name in routing.merged},
        candidates=tuple(CandidateHead(block=one.block, reads=one.head.reads) for one in routing.candidates),
    )


def _thresholds(exits: Sequence[TrainedExit], point: Point) -> tuple[Threshold, ...]:
    """List the thresholds of the exits that a point opens."""
    return tuple(
        Threshold(block=trained.block, value=value, per_class=point.per_class)
        for trained, value in zip(exits, point.thresholds, strict=True)
        if math.isfinite(value)
    )
