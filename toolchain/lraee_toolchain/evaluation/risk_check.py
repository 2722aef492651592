"""Is the guarantee of risk-controlled thresholds kept, and would a broken one be caught?

The training images are divided once more: heads, gates, and a population that neither of them saw. Thresholds are
chosen many times on half of the population, drawn at random, and the other half shows what they lose. Two things are
counted. On the hold-out: the measured drop, nothing taken off for the noise of so few images, as somebody who deploys
the thresholds would measure it. On the whole population: since the gating images are a random sample of it, the drop
over it is the true one and has no noise. Given the population, repeats are independent; a binomial bound therefore says
how often sampling error alone exceeds `delta`.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

from lraee_toolchain.early_exit.outcomes import ExitScores, Point, evaluate
from lraee_toolchain.early_exit.risk.risk_control import images_of, risk_controlled_point
from lraee_toolchain.early_exit.threshold_search import choose, search
from lraee_toolchain.evaluation.risk_metrics import RiskCheck, RiskChecks
from lraee_toolchain.evaluation.setting import Setting, Tower

HEADS_SHARE, GATES_SHARE = 0.5, 0.15
"""Of the training images; the rest is the population."""

EPSILONS = (0.005, 0.01)
"""Accuracy that may be lost."""

DELTA = 0.1

REPEATS = 200
"""Divisions of the population."""

FALSE_ALARM = 0.01
"""Probability that a chooser which exceeds `epsilon` in exactly `delta` of the repeats is called broken."""


class Chooser(Protocol):
    """A way to choose thresholds, such as `risk_control.risk_controlled_point`."""

    def __call__(self, scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point:
        """Thresholds for the images of `scores`."""
        ...


def uncontrolled_point(scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point:
    """Choose the point that saves most among those whose measured drop is within `epsilon`, which proves nothing."""
    chosen = choose(search(scores, quick=True), max_drop=epsilon, safe=False)
    assert chosen is not None  # all exits closed loses nothing
    return chosen


def measure_risk(tower: Tower, setting: Setting) -> RiskChecks:
    """Check the guarantee for every one of `EPSILONS`, and the uncontrolled chooser at the last."""
    seed, count = setting.config.seed, len(tower.pool.features)
    order = np.random.default_rng([seed, 2405]).permutation(count).astype(np.int64)
    first, second = round(HEADS_SHARE * count), round((HEADS_SHARE + GATES_SHARE) * count)
    heads, gating, population = (
        tower.pool.rows(np.sort(rows)) for rows in (order[:first], order[first:second], order[second:])
    )
    routing = setting.fit(tower, (heads, gating), seed)
    scores = setting.score(routing.exits, population)
    tried: list[tuple[Chooser, float]] = [(risk_controlled_point, epsilon) for epsilon in EPSILONS]
    tried.append((uncontrolled_point, EPSILONS[-1]))
    checks = []
    for choose_point, epsilon in tried:
        checks.append(check_risk(scores, epsilon=epsilon, delta=DELTA, seed=seed, choose_point=choose_point))
        setting.advance(1)
    return RiskChecks(population=len(scores.full_good), controlled=tuple(checks[:-1]), uncontrolled=checks[-1])


def check_risk(
    scores: ExitScores,
    *,
    epsilon: float,
    delta: float,
    seed: int,
    repeats: int = REPEATS,
    choose_point: Chooser = risk_controlled_point,
) -> RiskCheck:
    """Choose on a random half of a population and measure on the rest, many times.

    Args:
        scores: of images that neither heads nor gates were trained on.
        epsilon: accuracy that may be lost, 0 to 1.
        delta: probability with which more may be lost.
        seed: of the divisions.
        repeats: divisions.
        choose_point: the chooser to be checked.
    """
    count = len(scores.full_good)
    gating = round(count / 2)
    drops, pool_drops, saved, closed = np.zeros((4, repeats))
    for repeat in range(repeats):
        order = np.random.default_rng([seed, repeat]).permutation(count)
        chosen = choose_point(images_of(scores, order[:gating]), epsilon=epsilon, delta=delta, seed=repeat)
        held_out = evaluate(images_of(scores, order[gating:]), chosen.thresholds)
        drops[repeat], saved[repeat] = -held_out.difference, held_out.saved
        pool_drops[repeat] = -evaluate(scores, chosen.thresholds).difference
        closed[repeat] = np.isinf(chosen.thresholds).all()
    allowed = epsilon + 1e-12
    return RiskCheck(
        epsilon=epsilon,
        delta=delta,
        repeats=repeats,
        images=count - gating,
        exceeded=float((drops > allowed).mean()),
        exceeded_on_pool=float((pool_drops > allowed).mean()),
        limit=binomial_limit(repeats, delta) / repeats,
        mean_drop=float(drops.mean()),
        mean_saved=float(saved.mean()),
        closed=float(closed.mean()),
    )


def binomial_limit(repeats: int, delta: float) -> int:
    """Find the smallest count that a binomial of `repeats` and `delta` exceeds with probability `FALSE_ALARM` at most.

    >>> binomial_limit(200, 0.1)
    30
    """
    reached = 0.0
    for count in range(repeats + 1):
        reached += math.comb(repeats, count) * delta**count * (1 - delta) ** (repeats - count)
        if reached >= 1 - FALSE_ALARM:
            return count
    return repeats
