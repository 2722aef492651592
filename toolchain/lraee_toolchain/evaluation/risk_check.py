"""Does a chooser of thresholds keep its promise? Divide a pool of images many times and count how often it does not.

Two things are counted. On the hold-out, images that the chooser has not seen: the measured drop, nothing taken off for
the noise of so few images, as somebody who deploys the thresholds would measure it. On the pool: with the pool taken as
the population, the gating images are a random sample of it, so the drop over the whole pool is the true one and has no
noise. Given the pool, repeats are independent; that is why a binomial bound says how often luck alone exceeds `delta`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lraee_toolchain.early_exit.outcomes import ExitScores, Point, evaluate
from lraee_toolchain.early_exit.risk_control import images_of, risk_controlled_point

LUCK = 0.01
"""Probability that a chooser which breaks its promise in exactly `delta` of the repeats is called broken."""


class Chooser(Protocol):
    """A way to choose thresholds, such as `risk.risk_controlled_point`."""

    def __call__(self, scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point:
        """Thresholds for the images of `scores`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseCheck:
    """What became of the promise "at most `epsilon` lost, with probability ``1 - delta``"."""

    epsilon: float
    delta: float
    repeats: int
    images: int
    """Hold-out images of each repeat."""
    exceeded: float
    """Share of repeats whose drop on the hold-out is above `epsilon`."""
    exceeded_on_pool: float
    """The same for the drop over the whole pool."""
    limit: float
    """The largest share that `delta` explains, with probability ``1 - LUCK``."""
    mean_drop: float
    """On the hold-out, -1 to 1; below 0 when routing is better than full depth."""
    mean_saved: float
    """Share of full-depth FLOPs on the hold-out."""
    closed: float
    """Share of repeats that opened no exit."""

    @property
    def kept(self) -> bool:
        """Whether neither share is above the limit."""
        return max(self.exceeded, self.exceeded_on_pool) <= self.limit


def check_promise(
    scores: ExitScores,
    *,
    epsilon: float,
    delta: float,
    seed: int,
    repeats: int = 200,
    gating_share: float = 0.5,
    choose: Chooser = risk_controlled_point,
) -> PromiseCheck:
    """Choose on random gating images of a pool, measure on the rest, many times.

    Args:
        scores: of a pool of images that neither heads nor gates were trained on.
        epsilon: accuracy that may be lost, 0 to 1.
        delta: probability with which more may be lost.
        seed: of the divisions.
        repeats: divisions.
        gating_share: of the pool that the chooser gets.
        choose: the chooser to be checked.
    """
    count = len(scores.full_good)
    gating = round(gating_share * count)
    drops, pool_drops, saved, closed = np.zeros((4, repeats))
    for repeat in range(repeats):
        order = np.random.default_rng([seed, repeat]).permutation(count)
        chosen = choose(images_of(scores, order[:gating]), epsilon=epsilon, delta=delta, seed=repeat)
        held_out = evaluate(images_of(scores, order[gating:]), chosen.thresholds)
        drops[repeat], saved[repeat] = -held_out.difference, held_out.saved
        pool_drops[repeat] = -evaluate(scores, chosen.thresholds).difference
        closed[repeat] = np.isinf(chosen.thresholds).all()
    allowed = epsilon + 1e-12
    return PromiseCheck(
        epsilon=epsilon,
        delta=delta,
        repeats=repeats,
        images=count - gating,
        exceeded=float((drops > allowed).mean()),
        exceeded_on_pool=float((pool_drops > allowed).mean()),
        limit=most_by_luck(repeats, delta) / repeats,
        mean_drop=float(drops.mean()),
        mean_saved=float(saved.mean()),
        closed=float(closed.mean()),
    )


def most_by_luck(repeats: int, delta: float) -> int:
    """The smallest count that a binomial of `repeats` and `delta` exceeds with probability `LUCK` at most.

    >>> most_by_luck(200, 0.1)
    30
    """
    reached = 0.0
    for count in range(repeats + 1):
        reached += math.comb(repeats, count) * delta**count * (1 - delta) ** (repeats - count)
        if reached >= 1 - LUCK:
            return count
    return repeats
