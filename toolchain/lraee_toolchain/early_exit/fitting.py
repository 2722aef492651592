"""From cached features to everything a bundle says about leaving early: exits that pay and their operating points.

Everything here depends on the seed and on the heads' and gating splits alone, so it is run once for a bundle and
several times, with other seeds, for the comparison table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from lraee.bundle.manifest import ExitInfo, OperatingPoint, Threshold
from lraee_toolchain.early_exit.class_thresholds import class_ease, class_points
from lraee_toolchain.early_exit.exits import TrainedExit, best_exits, candidates, score
from lraee_toolchain.early_exit.operating_points import FAST_DROP, balanced_point, operating_points, points_of_front
from lraee_toolchain.early_exit.outcomes import Point, pareto_front
from lraee_toolchain.early_exit.risk_control import risk_controlled_point
from lraee_toolchain.early_exit.task import ExitTask, Material
from lraee_toolchain.early_exit.threshold_search import choose_exits, search

ROUTING = "routing.json"

PROMISED = "promised"
"""The operating point that `with_promise` adds."""

PER_CLASS = "per-class"
"""The operating point that `with_class_thresholds` adds."""

MOST_EXITS = 5
"""Most exits that ``--exits auto`` keeps: every exit visited costs time that its FLOPs do not show."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Routing:
    """What an export decides about leaving early."""

    exits: tuple[TrainedExit, ...]
    front: tuple[Point, ...]
    """Pareto front on the gating split; thresholds in the order of `exits`."""
    points: dict[str, Point]
    """Operating points by name."""
    candidates: tuple[TrainedExit, ...] = ()
    """All exits that were trained, of which `exits` were chosen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedRouting:
    """``routing.json``: the exits and operating points of the manifest, so that an export can resume from them."""

    exits: tuple[ExitInfo, ...] = ()
    points: tuple[OperatingPoint, ...] = ()


def fit_routing(
    task: ExitTask,
    heads: Material,
    gating: Material,
    *,
    blocks: Sequence[int] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Routing:
    """Train exits on `heads`, fit gates and thresholds on `gating`.

    Args:
        task: labels, costs, options and seed.
        heads: images that heads learn from.
        gating: images for temperatures, gates, thresholds and the choice of exits.
        blocks: candidate exits; None takes those of `candidates`.
        advance: called after each epoch of the heads' training.
    """
    config = task.config
    blocks = candidates(config.exits, task.costs.depth) if blocks is None else blocks
    trained = every = best_exits(task, heads, gating, blocks, advance=advance)
    scores = score(task, trained, gating)
    if config.exits == "auto" and not task.is_random:
        drop = config.max_accuracy_drop / 100
        kept = choose_exits(scores, max_drop=drop, min_saved=config.min_flops_saving, most=MOST_EXITS)
        if not kept:  # none pays at `balanced`; those that pay at `fast` are still worth having
            kept = choose_exits(scores, max_drop=drop + FAST_DROP, min_saved=None, most=MOST_EXITS, safe=False)
        trained = [trained[i] for i in kept]
        scores = scores.subset(kept)
    met = search(scores)
    points = operating_points(met, scores, config)
    if not task.is_random:
        points |= points_of_front(met, points)
    return Routing(exits=tuple(trained), front=tuple(pareto_front(met)), points=points, candidates=tuple(every))


def with_promise(task: ExitTask, routing: Routing, promise: Material) -> Routing:
    """Add the operating point ``promised``, whose thresholds are tested on images that fitted nothing.

    Args:
        task: its configuration holds the promise.
        routing: exits and gates.
        promise: material of images that none of them was fitted on.
    """
    config = task.config
    assert config.promise is not None
    point = risk_controlled_point(
        score(task, routing.exits, promise),
        epsilon=config.promise / 100,
        delta=1 - config.promise_confidence,
        seed=config.seed,
    )
    return replace(routing, points={**routing.points, PROMISED: point})


def with_class_thresholds(task: ExitTask, routing: Routing, heads: Material, gating: Material) -> Routing:
    """Add the operating point ``per-class``: class-based thresholds chosen as ``balanced`` is.

    It is left out where no exit is open or no table of thresholds meets the budget.

    Args:
        task: labels and budget.
        routing: exits and gates.
        heads: images that tell how easy each class is.
        gating: images that thresholds are chosen on.
    """
    if not routing.exits:
        return routing
    ease = class_ease(task, routing.exits, heads)
    point = balanced_point(class_points(task, routing.exits, gating, ease), task.config)
    return routing if point is None else replace(routing, points={**routing.points, PER_CLASS: point})


def without_unused(routing: Routing) -> Routing:
    """Drop exits that no operating point opens."""
    points = routing.points.values()
    used = [i for i in range(len(routing.exits)) if any(np.isfinite(point.thresholds[i]) for point in points)]
    if len(used) == len(routing.exits):
        return routing

    def keep(point: Point) -> Point:
        return replace(point, thresholds=tuple(point.thresholds[i] for i in used))

    return replace(
        routing,
        exits=tuple(routing.exits[i] for i in used),
        front=tuple(keep(p) for p in routing.front if not any(
            np.isfinite(t) for i, t in enumerate(p.thresholds) if i not in used
        )),
        points={name: keep(point) for name, point in routing.points.items()},
    )  # fmt: skip


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

    def threshold(trained: TrainedExit, value: float, point: Point) -> Threshold:
        return Threshold(block=trained.block, value=value, per_class=point.per_class)

    def accuracy(value: float) -> float | None:
        return None if task.is_random else value

    ratios = {block: ratio for block, ratio in information_to_noise.items() if math.isfinite(ratio)}
    exits = tuple(
        ExitInfo(
            block=trained.block,
            part=f"exit_{trained.block:02d}",
            reads=trained.head.reads,
            supervision=supervision,
            temperature=trained.temperature,
            gate=trained.gate,
            information_to_noise=ratios.get(trained.block),
            accuracy=accuracy(trained.accuracy),
        )
        for trained in routing.exits
    )
    points = tuple(
        OperatingPoint(
            name=name,
            thresholds=tuple(
                threshold(trained, value, point)
                for trained, value in zip(routing.exits, point.thresholds, strict=True)
                if math.isfinite(value)
            ),
            flops_saved=point.saved,
            accuracy=accuracy(point.accuracy),
            full_accuracy=accuracy(point.accuracy - point.difference),
        )
        for name, point in routing.points.items()
    )
    return SavedRouting(exits=exits, points=points)
