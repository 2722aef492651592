"""Named operating points: the thresholds that a bundle offers to be selected at run time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lraee.errors import ExportError
from lraee_toolchain.config.options import ExportConfig
from lraee_toolchain.early_exit.outcomes import Point
from lraee_toolchain.early_exit.threshold_search import choose

FRONT_LEVELS = (10, 20, 30, 40, 50, 60, 70)
"""Percent of FLOPs for which the Pareto front gives an operating point."""

FAST_DROP = 0.01
"""Accuracy that the point ``fast`` may lose beyond ``balanced``."""


def balanced_point(points: Sequence[Point], config: ExportConfig) -> Point | None:
    """Choose the point that the configured budget asks for; None if no point saves as much as it wants."""
    return choose(points, max_drop=config.max_accuracy_drop / 100, min_saved=config.min_flops_saving)


def operating_points(points: Sequence[Point], config: ExportConfig) -> dict[str, Point]:
    """Choose ``balanced`` as configured, ``accurate`` (half of that drop) and ``fast`` (one more point lost).

    Raises:
        ExportError: no thresholds save what ``min_flops_saving`` asks for.
    """
    balanced = balanced_point(points, config)
    if balanced is None:
        most = max(point.saved for point in points)
        raise ExportError(
            f"--min-flops-saving is {config.min_flops_saving}, the exits save at most {most:.3f}; ask for less, or "
            "give earlier --exits"
        )
    fast = choose(points, max_drop=config.max_accuracy_drop / 100 + FAST_DROP, safe=False)
    accurate = choose(points, max_drop=config.max_accuracy_drop / 200)
    return {"balanced": balanced, "accurate": accurate or balanced, "fast": fast or balanced}


def points_of_front(points: Sequence[Point], named_before: Mapping[str, Point]) -> dict[str, Point]:
    """Name points of the Pareto front by their saving: ``saves-20`` loses least while saving 20 % of the FLOPs or more.

    Thresholds that already have a name are left out, and so is a point that saves 10 % more than its name would say:
    where exits are poor, nothing may lie between a saving of 5 % and one of 60 %.
    """
    named: dict[str, Point] = {}
    known = {(point.schedule, point.thresholds) for point in named_before.values()}
    for percent in FRONT_LEVELS:
        point = choose(points, min_saved=percent / 100)
        fits = point is not None and point.saved < (percent + 10) / 100
        if point is not None and fits and (point.schedule, point.thresholds) not in known:
            named[f"saves-{percent}"] = point
            known.add((point.schedule, point.thresholds))
    return named
