"""From cached features to everything a bundle says about leaving early: exits that pay and their operating points.

Everything here depends on the seed and on the heads' and gating splits alone, so it is run once for a bundle and
several times, with other seeds, for the comparison table.

Where tokens may be merged, the same heads serve all merging schedules: they learn from the tokens of all. Temperatures,
gates and thresholds are fitted for each schedule, and the operating points are the best over all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce

from lraee_toolchain.early_exit.class_thresholds import class_ease, class_points
from lraee_toolchain.early_exit.exits import TrainedExit, best_exits, candidates, refit, score
from lraee_toolchain.early_exit.operating_points import FAST_DROP, balanced_point, operating_points, points_of_front
from lraee_toolchain.early_exit.outcomes import ExitScores, Point, evaluate, pareto_front
from lraee_toolchain.early_exit.risk.risk_control import boldest_point
from lraee_toolchain.early_exit.routing import Routing
from lraee_toolchain.early_exit.task import ExitTask, Material, Route
from lraee_toolchain.early_exit.threshold_search import choose, choose_exits, search

PROMISED = "promised"
"""The operating point that `with_promise` adds."""

PER_CLASS = "per-class"
"""The operating point that `with_class_thresholds` adds."""

MOST_EXITS = 5
"""Most exits that ``--exits auto`` keeps: every exit visited costs time that its FLOPs do not show."""


def fit_routing(
    task: ExitTask,
    routes: Sequence[Route],
    *,
    blocks: Sequence[int] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Routing:
    """Train exits on the heads' split, fit gates and thresholds on the gating split.

    Args:
        task: labels, options and seed.
        routes: the one that merges nothing, then one for each merging schedule.
        blocks: candidate exits; None takes those of `candidates`.
        advance: called after each epoch of the heads' training.
    """
    config, plain = task.config, routes[0]
    blocks = candidates(config.exits, task.costs.depth) if blocks is None else blocks
    heads = reduce(Material.joined, [replace(route.heads, unmerged=None) for route in routes])
    heads = replace(heads, forms=len(routes))
    every = best_exits(task, heads, plain.gating, blocks, advance=advance)
    found: dict[str | None, tuple[TrainedExit, ...]] = {}
    points: list[Point] = []
    for route in routes:
        of_route = replace(task, costs=route.costs)
        fitted = every if route is plain else refit(of_route, every, route.gating)
        scores = score(of_route, fitted, route.gating, schedule=route.schedule)
        kept = _exits_that_pay(task, scores)
        found[route.schedule] = tuple(fitted[place] for place in kept)
        points += search(scores.subset(kept))
    named = operating_points(points, config)
    if not task.is_random:
        named |= points_of_front(points, named)
    return Routing(
        exits=found.pop(None),
        front=tuple(pareto_front(points)),
        points=named,
        candidates=tuple(every),
        merged={name: exits for name, exits in found.items() if name is not None},
    )


def _exits_that_pay(task: ExitTask, scores: ExitScores) -> list[int]:
    """Choose among the exits of a route, by position: those that pay, or all where they were asked for by name."""
    config = task.config
    if config.exits != "auto" or task.is_random:
        return list(range(len(scores.blocks)))
    drop = config.max_accuracy_drop / 100
    kept = choose_exits(scores, max_drop=drop, min_saved=config.min_flops_saving, most=MOST_EXITS)
    if not kept:  # none pays at `balanced`; those that pay at `fast` are still worth having
        kept = choose_exits(scores, max_drop=drop + FAST_DROP, min_saved=None, most=MOST_EXITS, safe=False)
    return kept


def with_promise(task: ExitTask, routing: Routing, routes: Sequence[Route]) -> Routing:
    """Add the operating point ``promised``, whose thresholds are tested on images that fitted nothing.

    Which schedule it takes is chosen on the gating split; where nothing passes, nothing is merged and no image leaves.

    Args:
        task: its configuration holds the promise.
        routing: exits and gates.
        routes: of its schedules, each with images that none of them was fitted on.
    """
    config = task.config
    assert config.promise is not None
    epsilon = config.promise / 100
    best = choose(routing.front, max_drop=epsilon)
    chosen = None if best is None else best.schedule
    by_schedule = {route.schedule: route for route in routes}

    def scores(schedule: str | None) -> ExitScores:
        route = by_schedule[schedule]
        assert route.promise is not None
        of_route = replace(task, costs=route.costs)
        return score(of_route, routing.exits_under(schedule), route.promise, schedule=schedule)

    met = scores(chosen)
    point = boldest_point(met, epsilon=epsilon, delta=1 - config.promise_confidence, seed=config.seed)
    if point is None:
        met = scores(None)
        point = evaluate(met, [float("inf")] * len(met.blocks))
    return replace(routing, points={**routing.points, PROMISED: point})


def with_class_thresholds(task: ExitTask, routing: Routing, heads: Material, gating: Material) -> Routing:
    """Add the operating point ``per-class``: class-based thresholds chosen as ``balanced`` is, without merging.

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
