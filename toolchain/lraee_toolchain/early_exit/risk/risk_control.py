"""Risk control: thresholds that lose at most `epsilon` of accuracy to full depth, with probability `1 - delta`.

Learn then test: one half of the images proposes points and orders them from certain to bold; the other half tests them
in that order, each at level `delta`, and stops at the first that fails. However many points there are, one that breaks
the guarantee passes with probability `delta` at most, since the order was fixed before the test.

The guarantee holds for images like those of `scores`. Neither half may have trained heads, temperatures or gates or
have chosen the exits; `delta` is the chance of drawing images that mislead. `lraee_toolchain.evaluation.risk_check`
checks it by resampling.

`threshold_search.choose` differs: it takes three standard errors off a difference and proves nothing.

Source: Jazbec et al., *Fast yet Safe: Early-Exiting with Risk Control*, arXiv 2405.20915; fixed-sequence testing from
Angelopoulos et al., *Learn then Test*, arXiv 2110.01052.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.early_exit.outcomes import ExitScores, Point, evaluate, outcome
from lraee_toolchain.early_exit.risk.betting_test import drop_p_value
from lraee_toolchain.early_exit.threshold_search import search

PROPOSAL_SHARE = 0.5
"""Of the images; the rest tests."""

LEVELS = 32
"""Shared thresholds proposed alongside the points of `threshold_search.search`."""

STEPS = 6
"""Points between two neighbours of the sequence."""


def risk_controlled_point(scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point:
    """Choose the boldest point that passes the test as `boldest_point` does; all exits are closed when none does.

    Where tokens are merged, that loses something too: call `boldest_point` there.
    """
    passed = boldest_point(scores, epsilon=epsilon, delta=delta, seed=seed)
    return evaluate(scores, [np.inf] * len(scores.blocks)) if passed is None else passed


def boldest_point(scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point | None:
    """Choose the boldest point that passes the test; None when none does.

    Args:
        scores: of images that nothing was trained on.
        epsilon: accuracy that may be lost against full depth, 0 to 1.
        delta: probability with which more may be lost, 0 to 1.
        seed: of the division into halves.

    Returns:
        Thresholds, with accuracy and saving on all of `scores`.

    Raises:
        ValueError: `epsilon` or `delta` is out of range.
    """
    order = np.random.default_rng(seed).permutation(len(scores.full_good))
    proposing = round(PROPOSAL_SHARE * len(order))
    sequence = propose_sequence(images_of(scores, order[:proposing]), epsilon=epsilon)
    passed = last_to_pass(sequence, images_of(scores, order[proposing:]), epsilon=epsilon, delta=delta)
    return None if passed is None else evaluate(scores, passed.thresholds)


def propose_sequence(scores: ExitScores, *, epsilon: float) -> list[Point]:
    """Order points from the most certain to pass to the boldest, each saving more than the one before.

    Certainty is ``(difference + epsilon) / standard error``; only points that no other beats in both certainty and
    saving are kept, so the sequence is one path through the thresholds. Empty without images, and without exits where
    nothing is merged.
    """
    _check(epsilon)
    if not len(scores.gate) or (not scores.blocks and scores.merged_good is None):
        return []
    if not scores.blocks:
        return _most_certain([evaluate(scores, ())], epsilon)
    tried = [point.thresholds for point in search(scores, quick=True)]
    tried += [(float(level),) * len(scores.blocks) for level in np.quantile(scores.gate, np.linspace(0, 1, LEVELS))]
    path = _most_certain((evaluate(scores, thresholds) for thresholds in tried), epsilon)
    between = [
        _blend(bold.thresholds, certain.thresholds, step / STEPS)
        for certain, bold in itertools.pairwise(path)
        for step in range(1, STEPS)
    ]
    return _most_certain([*path, *(evaluate(scores, thresholds) for thresholds in between)], epsilon)


def last_to_pass(sequence: Sequence[Point], scores: ExitScores, *, epsilon: float, delta: float) -> Point | None:
    """Test points in their order until one fails; the last that passed, or None.

    Args:
        sequence: fixed without looking at `scores`.
        scores: of the images that test, in an order fixed without looking at them.
        epsilon: accuracy that may be lost, 0 to 1.
        delta: level of each test.
    """
    _check(epsilon)
    if not 0 < delta < 1:
        raise ValueError(f"delta is {delta}, wanted a probability above 0 and below 1, such as 0.1")
    passed = None
    for point in sequence:
        losses = scores.full_good - outcome(scores, point.thresholds).good
        if drop_p_value(losses, epsilon=epsilon, delta=delta) > delta:
            break
        passed = point
    return passed


def images_of(scores: ExitScores, index: NDArray[np.int64]) -> ExitScores:
    """Select images, in the order of `index`."""
    return scores.rows(index)


def _most_certain(points: Iterable[Point], epsilon: float) -> list[Point]:
    """Keep points that save FLOPs and that no other beats in certainty and saving, by falling certainty."""

    def certainty(point: Point) -> float:
        return (point.difference + epsilon) / point.standard_error  # above 0 where any image leaves

    kept: list[Point] = []
    for point in sorted((p for p in points if p.saved > 0), key=lambda p: (-certainty(p), -p.saved)):
        if not kept or point.saved > kept[-1].saved:
            kept.append(point)
    return kept


def _blend(bold: Sequence[float], certain: Sequence[float], share: float) -> tuple[float, ...]:
    """Interpolate between two points; an exit that only one of them opens counts as threshold 1 in the other."""
    return tuple(
        np.inf if np.isinf([a, b]).all() else (1 - share) * min(a, 1.0) + share * min(b, 1.0)
        for a, b in zip(certain, bold, strict=True)
    )


def _check(epsilon: float) -> None:
    if not 0 <= epsilon < 1:
        raise ValueError(f"epsilon is {epsilon}, wanted a share of accuracy from 0 to below 1, such as 0.01")
