"""Choose the thresholds of all exits together: accuracy against FLOPs on the gating split (LCT).

For each price on FLOPs, ``accuracy + price * saved`` is maximized over a grid of thresholds: over every combination up
to `EXACT_EXITS` exits, by coordinate ascent with restarts above. Maximizing on a few thousand images picks what was
lucky on them, so the same is done with losses (full depth right, exit wrong) weighed up to eight times; such points
save less and keep what they promise. What is chosen in the end is judged by its plain paired difference to full depth
less `SAFETY` standard errors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

GRID = 24
"""Thresholds tried for each exit: quantiles of its gate, and infinity (nobody leaves)."""

EXACT_EXITS = 3
PRICES = np.geomspace(0.002, 3.0, 28)
AVERSIONS = (1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
"""How much more a loss counts than a rescue while searching."""

SAFETY = 3.0
"""Standard errors taken off a difference before it is believed: it was the best of many."""


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
    difference: float
    """Accuracy less that at full depth, -1 to 1."""
    standard_error: float
    """Of the paired difference; as if one more image differed when any leaves, since none among few proves little."""

    @property
    def safe_difference(self) -> float:
        """The difference less `SAFETY` standard errors."""
        return self.difference - SAFETY * self.standard_error


def leaving_exit(scores: ExitScores, thresholds: Sequence[float]) -> NDArray[np.intp]:
    """(images,) position of the exit where each image leaves; ``len(blocks)`` at full depth."""
    if not scores.blocks:
        return np.zeros(len(scores.full_good), np.intp)
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
    good, flops, where = outcome(scores, thresholds)
    difference = good - scores.full_good
    unseen = float((where < len(scores.blocks)).any())  # one image more that might have differed
    return Point(
        thresholds=tuple(float(t) for t in thresholds),
        accuracy=float(good.mean()),
        saved=float(1 - flops.mean() / scores.full_flops),
        difference=float(difference.mean()),
        standard_error=float(np.sqrt(np.square(difference - difference.mean()).sum() + unseen) / len(difference)),
    )


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Points that no other beats in both accuracy and FLOPs saved, by rising saving."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.saved, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front[::-1]


def search(scores: ExitScores, *, quick: bool = False) -> list[Point]:
    """Every point that is best for some price and some aversion to losses, by rising saving; the closed one first.

    Args:
        scores: of the gating split.
        quick: one aversion, fewer prices and no combinations, for comparing sets of exits.
    """
    count = len(scores.blocks)
    closed = [np.inf] * count
    found = {tuple(closed): evaluate(scores, closed)}
    grids = [_grid(scores.gate[:, i]) for i in range(count)]
    for aversion in (2.0,) if quick else AVERSIONS:
        loss = scores.full_good[:, None] * (1 - scores.good)
        weighed = replace(scores, good=scores.good - (aversion - 1) * loss)
        if count <= EXACT_EXITS and not quick:
            best = _best_combinations(weighed, grids)
        else:
            best = _ascend_along_prices(weighed, grids, PRICES[::3] if quick else PRICES)
        for thresholds in best:
            if tuple(thresholds) not in found:
                found[tuple(thresholds)] = evaluate(scores, thresholds)
    return sorted(found.values(), key=lambda p: (p.saved, p.accuracy))


def _ascend_along_prices(
    scores: ExitScores, grids: Sequence[NDArray[np.float64]], prices: NDArray[np.float64]
) -> list[list[float]]:
    """Coordinate ascent for each price, from the last price's answer, from all closed and from all medians."""
    closed = [np.inf] * len(grids)
    start, found = list(closed), []
    for price in prices:
        restarts = (start, closed, [float(np.median(grid[:-1])) for grid in grids])
        tried = [_ascend(scores, grids, list(initial), float(price)) for initial in restarts]
        start = max(tried, key=lambda t: _value(evaluate(scores, t), float(price)))
        found.append(start)
    return found


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


def _best_combinations(scores: ExitScores, grids: Sequence[NDArray[np.float64]]) -> list[list[float]]:
    """For each price the best of all combinations; the last exit's grid is done in one matrix product."""
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
        good[row] = good_sum + here @ scores.good[inside, last] + (~here) @ scores.full_good[inside]
        flops[row] = flops_sum + gone * (scores.exit_flops[last] + visit_last) + stay * (scores.full_flops + visit_last)
    accuracy, saved = good / images, 1 - flops / images / scores.full_flops
    found = []
    for price in PRICES:
        best = np.unravel_index(int((accuracy + price * saved).argmax()), accuracy.shape)
        found.append([*map(float, combinations[int(best[0])]), float(grids[last][int(best[1])])])
    return found


def choose(
    points: Sequence[Point], *, max_drop: float | None = None, min_saved: float | None = None, safe: bool = True
) -> Point | None:
    """The point that saves most within a drop, or loses least at a saving; None if there is none.

    Args:
        points: from `search`.
        max_drop: accuracy that may be lost, 0 to 1.
        min_saved: share of FLOPs that must be saved; replaces `max_drop`.
        safe: judge by `Point.safe_difference` instead of the plain difference.
    """

    def difference(point: Point) -> float:
        return point.safe_difference if safe else point.difference

    if min_saved is not None:
        return max((p for p in points if p.saved >= min_saved), key=difference, default=None)
    fitting = [p for p in points if max_drop is None or difference(p) >= -max_drop - 1e-12]
    return max(fitting, key=lambda p: p.saved, default=None)


def choose_exits(
    scores: ExitScores,
    *,
    max_drop: float,
    min_saved: float | None,
    most: int,
    least_gain: float = 0.005,
    safe: bool = True,
) -> list[int]:
    """Which exits pay, by position: added one at a time while the chosen point gains at least `least_gain`.

    Args:
        scores: of all candidates.
        max_drop: see `choose`.
        min_saved: see `choose`.
        most: exits at most.
        least_gain: in FLOPs saved, or in accuracy when `min_saved` is given.
        safe: see `choose`.
    """
    kept: list[int] = []
    best = -np.inf
    while len(kept) < most:
        trials: list[tuple[float, int]] = []
        for candidate in range(len(scores.blocks)):
            if candidate in kept:
                continue
            subset = scores.subset(sorted([*kept, candidate]))
            point = choose(search(subset, quick=True), max_drop=max_drop, min_saved=min_saved, safe=safe)
            if point is not None:
                trials.append((point.saved if min_saved is None else point.difference, candidate))
        if not trials:
            break
        value, candidate = max(trials)
        if value < best + least_gain or (min_saved is None and value <= 0):
            break
        best = value
        kept = sorted([*kept, candidate])
    return kept
