"""Choose the thresholds of all exits together: accuracy against FLOPs on the gating split (LCT).

For each weight `price` on FLOPs, coordinate ascent maximizes ``accuracy + price * saved`` over a grid of thresholds;
up to `EXACT_EXITS` exits every combination of the grid is tried instead. Everything met on the way is kept, and the
Pareto front of it gives the operating points.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRID = 24
"""Thresholds tried for each exit: quantiles of its gate, and infinity (nobody leaves)."""

EXACT_EXITS = 3
PRICES = np.geomspace(0.002, 3.0, 28)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExitScores:
    """What the exits would do for the images of one split."""

    blocks: tuple[int, ...]
    """Rising."""
    gate: NDArray[np.float32]
    """(images, exits)."""
    good: NDArray[np.float64]
    """(images, exits) 1 where the exit's answer is right, or agrees with FP32."""
    full_good: NDArray[np.float64]
    """(images,) the same at full depth."""
    exit_flops: NDArray[np.float64]
    """(exits,) of leaving there, without the exits visited before."""
    visit_flops: NDArray[np.float64]
    """(exits,) of evaluating each exit."""
    full_flops: float
    """At full depth, without exits."""

    def subset(self, keep: Sequence[int]) -> ExitScores:
        """Only some exits, by position."""
        index = list(keep)
        return ExitScores(
            blocks=tuple(self.blocks[i] for i in index),
            gate=self.gate[:, index],
            good=self.good[:, index],
            full_good=self.full_good,
            exit_flops=self.exit_flops[index],
            visit_flops=self.visit_flops[index],
            full_flops=self.full_flops,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Thresholds and what they do on the split they were chosen on."""

    thresholds: tuple[float, ...]
    """One for each exit; infinity closes the exit."""
    accuracy: float
    """0 to 1."""
    saved: float
    """Share of full-depth FLOPs, 0 to 1, visits of exits counted."""


def leaving_exit(scores: ExitScores, thresholds: Sequence[float]) -> NDArray[np.intp]:
    """(images,) position of the exit where each image leaves; ``len(blocks)`` at full depth."""
    passes = scores.gate >= np.asarray(thresholds, np.float32)
    first = passes.argmax(axis=1)
    return np.where(passes.any(axis=1), first, len(scores.blocks))


def outcome(
    scores: ExitScores, thresholds: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """For each image: 1 if good, FLOPs, and where it left. Exits with infinite thresholds are not visited."""
    where = leaving_exit(scores, thresholds)
    open_exits = np.isfinite(np.asarray(thresholds))
    visits = np.cumsum(scores.visit_flops * open_exits)
    table = np.append(scores.exit_flops + visits, scores.full_flops + (visits[-1] if len(visits) else 0.0))
    good = np.concatenate([scores.good, scores.full_good[:, None]], axis=1)
    return good[np.arange(len(where)), where], table[where], where


def evaluate(scores: ExitScores, thresholds: Sequence[float]) -> Point:
    """Accuracy and FLOPs saved with these thresholds."""
    good, flops, _ = outcome(scores, thresholds)
    return Point(
        thresholds=tuple(float(t) for t in thresholds),
        accuracy=float(good.mean()),
        saved=float(1 - flops.mean() / scores.full_flops),
    )


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Points that no other beats in both accuracy and FLOPs saved, by rising saving."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.saved, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front[::-1]


def search(scores: ExitScores, *, exact: bool = True) -> list[Point]:
    """The Pareto front of thresholds on these images.

    Args:
        scores: of the gating split.
        exact: try every combination of the grid when there are at most `EXACT_EXITS` exits.
    """
    grids = [_grid(scores.gate[:, i]) for i in range(len(scores.blocks))]
    if exact and len(grids) <= EXACT_EXITS:
        return pareto_front(_all_points(scores, grids))
    found: dict[tuple[float, ...], Point] = {}
    closed = [np.inf] * len(grids)
    start = list(closed)
    for price in PRICES:
        for initial in (start, closed, [float(np.median(grid[:-1])) for grid in grids]):
            thresholds = _ascend(scores, grids, list(initial), float(price))
            point = found.setdefault(tuple(thresholds), evaluate(scores, thresholds))
            if initial is start or _value(point, price) > _value(evaluate(scores, start), price):
                start = thresholds
    found.setdefault(tuple(closed), evaluate(scores, closed))
    return pareto_front(found.values())


def _value(point: Point, price: float) -> float:
    return point.accuracy + price * point.saved


def _grid(gate: NDArray[np.float32]) -> NDArray[np.float64]:
    quantiles = np.quantile(gate, np.linspace(0.0, 0.98, GRID - 1)).astype(np.float64)
    return np.append(np.unique(quantiles), np.inf)


def _ascend(
    scores: ExitScores, grids: Sequence[NDArray[np.float64]], thresholds: list[float], price: float
) -> list[float]:
    """Improve one threshold after the other until none helps."""
    worth_full = scores.full_good - price
    worth = scores.good - price * scores.exit_flops / scores.full_flops
    toll = price * scores.visit_flops / scores.full_flops
    count = len(grids)
    for _ in range(12):
        before = list(thresholds)
        for e in range(count):
            # what an image is worth that is still inside behind exit e, from the last exit backwards
            later = worth_full
            for k in range(count - 1, e, -1):
                if np.isfinite(thresholds[k]):
                    later = np.where(scores.gate[:, k] >= thresholds[k], worth[:, k], later) - toll[k]
            inside = np.ones(len(later), np.bool_)
            for k in range(e):
                inside &= ~(scores.gate[:, k] >= thresholds[k])
            gain = (worth[:, e] - later)[inside]
            leaves = scores.gate[inside, e] >= grids[e][:, None].astype(np.float32)
            total = leaves @ gain - toll[e] * inside.sum() * np.isfinite(grids[e])
            thresholds[e] = float(grids[e][int(total.argmax())])
        if thresholds == before:
            break
    return thresholds


def _all_points(scores: ExitScores, grids: Sequence[NDArray[np.float64]]) -> list[Point]:
    """Every combination; the last exit's grid is done in one matrix product."""
    if not grids:
        return [evaluate(scores, [])]
    points: list[Point] = []
    last = len(grids) - 1
    leaves_last = scores.gate[:, last] >= grids[last][:, None].astype(np.float32)
    images = len(scores.full_good)
    for firsts in itertools.product(*grids[:-1]):
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
        good = good_sum + here @ scores.good[inside, last] + (~here) @ scores.full_good[inside]
        visit_last = scores.visit_flops[last] * np.isfinite(grids[last])
        flops = (
            flops_sum
            + gone * (scores.exit_flops[last] + visits + visit_last)
            + stay * (scores.full_flops + visits + visit_last)
        )
        points += [
            Point(
                thresholds=(*map(float, firsts), float(grids[last][i])),
                accuracy=float(good[i] / images),
                saved=float(1 - flops[i] / images / scores.full_flops),
            )
            for i in range(len(grids[last]))
        ]
    return points


def choose(
    front: Sequence[Point], *, min_accuracy: float | None = None, min_saved: float | None = None
) -> Point | None:
    """The point of the front that saves most at an accuracy, or is most accurate at a saving; None if none does."""
    if min_saved is not None:
        fitting = [point for point in front if point.saved >= min_saved]
        return max(fitting, key=lambda p: p.accuracy, default=None)
    fitting = [point for point in front if min_accuracy is None or point.accuracy >= min_accuracy - 1e-12]
    return max(fitting, key=lambda p: p.saved, default=None)


def choose_exits(
    scores: ExitScores, *, min_accuracy: float | None, min_saved: float | None, most: int, least_gain: float = 0.005
) -> list[int]:
    """Which exits pay, by position: added one at a time while the chosen point gains at least `least_gain`.

    Args:
        scores: of all candidates.
        min_accuracy: see `choose`.
        min_saved: see `choose`.
        most: exits at most.
        least_gain: in FLOPs saved, or in accuracy when `min_saved` is given.
    """
    kept: list[int] = []
    best = 0.0 if min_saved is None else -1.0
    while len(kept) < most:
        trials: list[tuple[float, int]] = []
        for candidate in range(len(scores.blocks)):
            if candidate in kept:
                continue
            subset = scores.subset(sorted([*kept, candidate]))
            point = choose(search(subset, exact=False), min_accuracy=min_accuracy, min_saved=min_saved)
            if point is not None:
                trials.append((point.saved if min_saved is None else point.accuracy, candidate))
        if not trials:
            break
        gain, candidate = max(trials)
        if gain < best + least_gain:
            break
        best = gain
        kept = sorted([*kept, candidate])
    return kept
