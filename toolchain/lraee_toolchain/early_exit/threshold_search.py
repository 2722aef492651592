"""Choose the thresholds of all exits together: accuracy against FLOPs on the gating split (LCT).

For each Lagrange weight on FLOPs we maximize ``accuracy + weight * saved`` over a grid of thresholds by coordinate
ascent with restarts, and up to `EXACT_EXITS` exits also over every combination of a coarser grid. Selecting on a few
thousand images overfits them, so the search is repeated with losses (full depth right, exit wrong) weighted up to eight
times; those points save less but generalize. For the same reason it is repeated with agreement with FP32 counted as
much as right answers. These points are the best for some weight, which leaves gaps: between two of them that differ
much in FLOPs, thresholds are moved from the one to the other in steps.

A budget of accuracy is judged by the plain paired difference to full depth, less `outcomes.SAFETY` standard errors.
Where a saving is asked for, nothing bounds how much luck the best of many points has had, so the best is the one with
the highest `outcomes.Point.steady_difference`, judged alike.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.early_exit.outcomes import ExitScores, Point, evaluate, pareto_front

GRID = 64
"""Thresholds tried for each exit: quantiles of its gate, and infinity, which closes the exit. 24 of them would save one
percent of the FLOPs less on images that the thresholds were not chosen on."""

COARSE_GRID = 24
"""Thresholds tried for each exit where every combination is."""

EXACT_EXITS = 3
"""Up to this many exits every combination of thresholds is tried."""

LAGRANGE_WEIGHTS = np.geomspace(0.002, 3.0, 28)
"""Weights of the share of FLOPs saved against accuracy."""

LOSS_WEIGHTS = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
"""How much more a loss counts than a rescue in the search."""

STEADY_LOSS_WEIGHTS = (1.0, 2.0)
"""The same where agreement counts as much as right answers."""

GAP = 0.02
"""Share of FLOPs by which two neighbours of the search's answers may differ before points between them are tried."""

BETWEEN = 8
"""Points tried in a gap."""

LEAST_GAIN = 0.005
"""FLOPs saved (or accuracy, where a saving is asked for) that another exit must gain to be kept."""


def search(scores: ExitScores, *, quick: bool = False) -> list[Point]:
    """Find every point that is best for some Lagrange weight and some way to count answers, and points between them.

    Args:
        scores: of the gating split.
        quick: one loss weight, fewer Lagrange weights and no combinations, for comparing sets of exits.

    Returns:
        The points by rising saving, among them the one that closes all exits.
    """
    count = len(scores.blocks)
    closed = [np.inf] * count
    found = {tuple(closed): evaluate(scores, closed)}
    grids, coarse = ([_grid(scores.gate[:, i], size) for i in range(count)] for size in (GRID, COARSE_GRID))
    for weighted in _weighted(scores, quick=quick):
        best = _ascend_along_weights(weighted, grids, LAGRANGE_WEIGHTS[::3] if quick else LAGRANGE_WEIGHTS)
        if count <= EXACT_EXITS and not quick:
            best += _best_combinations(weighted, coarse)
        for thresholds in best:
            if tuple(thresholds) not in found:
                found[tuple(thresholds)] = evaluate(scores, thresholds)
    for thresholds in _between(list(found.values()), grids):
        if tuple(thresholds) not in found:
            found[tuple(thresholds)] = evaluate(scores, thresholds)
    return sorted(found.values(), key=lambda p: (p.saved, p.accuracy))


def _weighted(scores: ExitScores, *, quick: bool) -> Iterator[ExitScores]:
    """Yield the scores with each way to count answers that is searched."""
    counted: list[tuple[ExitScores, tuple[float, ...]]] = [(scores, (2.0,) if quick else LOSS_WEIGHTS)]
    if scores.agreement is not None:
        counted.append((scores.steady, (2.0,) if quick else STEADY_LOSS_WEIGHTS))
    for plain, loss_weights in counted:
        for loss_weight in loss_weights:
            more, full = loss_weight - 1, plain.full_good
            yield replace(
                plain,
                good=plain.good - more * full[:, None] * (1 - plain.good),
                merged_good=plain.end_good - more * full * (1 - plain.end_good),
                agreement=None,
            )


def _between(points: Sequence[Point], grids: Sequence[NDArray[np.float64]]) -> Iterator[list[float]]:
    """Yield thresholds between neighbours on the front that differ by more than `GAP`, in steps of their quantiles."""
    front = pareto_front(points)
    for low, high in itertools.pairwise(front):
        if high.saved - low.saved <= GAP:
            continue
        ends = [
            np.array([np.searchsorted(grid, value) for grid, value in zip(grids, point.thresholds, strict=True)])
            for point in (low, high)
        ]
        for share in np.linspace(0, 1, BETWEEN + 2)[1:-1]:
            places = np.rint(ends[0] + share * (ends[1] - ends[0])).astype(int)
            yield [float(grid[min(place, len(grid) - 1)]) for grid, place in zip(grids, places, strict=True)]


def _ascend_along_weights(
    scores: ExitScores, grids: Sequence[NDArray[np.float64]], weights: NDArray[np.float64]
) -> list[list[float]]:
    """Run coordinate ascent for each weight, from the last weight's answer, from all closed and from all medians."""
    closed = [np.inf] * len(grids)
    start, found = list(closed), []
    for weight in weights:
        restarts = (start, closed, [float(np.median(grid[:-1])) for grid in grids])
        tried = [_ascend(scores, grids, list(initial), float(weight)) for initial in restarts]
        start = max(tried, key=lambda t: _value(evaluate(scores, t), float(weight)))
        found.append(start)
    return found


def _value(point: Point, weight: float) -> float:
    return point.accuracy + weight * point.saved


def _grid(gate: NDArray[np.float32], size: int) -> NDArray[np.float64]:
    quantiles = np.quantile(gate, np.linspace(0.0, 0.98, size - 1)).astype(np.float64)
    return np.append(np.unique(quantiles), np.inf)


def _ascend(
    scores: ExitScores, grids: Sequence[NDArray[np.float64]], thresholds: list[float], weight: float
) -> list[float]:
    """Improve one threshold after the other until no change helps."""
    end_value = scores.end_good - weight * scores.end_flops / scores.full_flops
    value = scores.good - weight * scores.exit_flops / scores.full_flops
    visit_cost = weight * scores.visit_flops / scores.full_flops
    count = len(grids)
    for _ in range(12):
        before = list(thresholds)
        for e in range(count):
            # the value of an image that is still inside after exit e, from the last exit backwards
            later = end_value
            for k in range(count - 1, e, -1):
                if np.isfinite(thresholds[k]):
                    later = np.where(scores.gate[:, k] >= thresholds[k], value[:, k], later) - visit_cost[k]
            inside = np.ones(len(later), np.bool_)
            for k in range(e):
                inside &= ~(scores.gate[:, k] >= thresholds[k])
            gain = (value[:, e] - later)[inside]
            leaves = scores.gate[inside, e] >= grids[e][:, None].astype(np.float32)
            total = leaves @ gain - visit_cost[e] * inside.sum() * np.isfinite(grids[e])
            thresholds[e] = float(grids[e][int(total.argmax())])
        if thresholds == before:
            break
    return thresholds


def _best_combinations(scores: ExitScores, grids: Sequence[NDArray[np.float64]]) -> list[list[float]]:
    """Find the best of all combinations for each weight; one matrix product covers the last exit's grid."""
    if not grids:
        return []
    last = len(grids) - 1
    leaves_last = scores.gate[:, last] >= grids[last][:, None].astype(np.float32)
    images = len(scores.full_good)
    combinations = list(itertools.product(*grids[:-1]))
    good = np.empty((len(combinations), len(grids[last])))
    flops = np.empty_like(good)
    for row, firsts in enumerate(combinations):
        inside = np.ones(images, np.bool_)
        good_sum, flops_sum, visits = 0.0, 0.0, 0.0
        for k, threshold in enumerate(firsts):
            if np.isfinite(threshold):
                visits += scores.visit_flops[k]
                leaving = inside & (scores.gate[:, k] >= np.float32(threshold))
                good_sum += float(scores.good[leaving, k].sum())
                flops_sum += float(leaving.sum() * (scores.exit_flops[k] + visits))
                inside &= ~leaving
        here = leaves_last[:, inside]
        gone = here.sum(axis=1)
        stay = int(inside.sum()) - gone
        visit_last = visits + scores.visit_flops[last] * np.isfinite(grids[last])
        good[row] = good_sum + here @ scores.good[inside, last] + (~here) @ scores.end_good[inside]
        flops[row] = flops_sum + gone * (scores.exit_flops[last] + visit_last) + stay * (scores.end_flops + visit_last)
    accuracy, saved = good / images, 1 - flops / images / scores.full_flops
    found = []
    for weight in LAGRANGE_WEIGHTS:
        best = np.unravel_index(int((accuracy + weight * saved).argmax()), accuracy.shape)
        found.append([*map(float, combinations[int(best[0])]), float(grids[last][int(best[1])])])
    return found


def choose(
    points: Sequence[Point], *, max_drop: float | None = None, min_saved: float | None = None, safe: bool = True
) -> Point | None:
    """Choose the point that saves most within a drop, or loses least at a saving; None if there is none.

    Args:
        points: from `search`.
        max_drop: accuracy that may be lost, 0 to 1.
        min_saved: share of FLOPs that must be saved; replaces `max_drop`. Least is lost by `safe_steady_difference`.
        safe: judge by `Point.safe_difference` instead of the plain difference.
    """

    def difference(point: Point) -> float:
        return point.safe_difference if safe else point.difference

    if min_saved is not None:
        enough = (p for p in points if p.saved >= min_saved)
        return max(enough, key=lambda p: p.safe_steady_difference if safe else p.steady_difference, default=None)
    fitting = [p for p in points if max_drop is None or difference(p) >= -max_drop - 1e-12]
    return max(fitting, key=lambda p: p.saved, default=None)


def choose_exits(
    scores: ExitScores,
    *,
    max_drop: float,
    min_saved: float | None,
    most: int,
    safe: bool = True,
) -> list[int]:
    """Choose the exits that pay, by position: one at a time while the chosen point gains at least `LEAST_GAIN`.

    Args:
        scores: of all candidates.
        max_drop: see `choose`.
        min_saved: see `choose`.
        most: exits at most.
        safe: see `choose`.
    """
    kept: list[int] = []
    best = -np.inf
    if scores.merged_good is not None:  # merging saves something without any exit
        bare = choose([evaluate(scores.subset([]), ())], max_drop=max_drop, min_saved=min_saved, safe=safe)
        best = best if bare is None else (bare.saved if min_saved is None else bare.steady_difference)
    while len(kept) < most:
        trials: list[tuple[float, int]] = []
        for candidate in range(len(scores.blocks)):
            if candidate in kept:
                continue
            subset = scores.subset(sorted([*kept, candidate]))
            point = choose(search(subset, quick=True), max_drop=max_drop, min_saved=min_saved, safe=safe)
            if point is not None:
                trials.append((point.saved if min_saved is None else point.steady_difference, candidate))
        if not trials:
            break
        value, candidate = max(trials)
        if value < best + LEAST_GAIN or (min_saved is None and value <= 0):
            break
        best = value
        kept = sorted([*kept, candidate])
    return kept
