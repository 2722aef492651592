"""Is the promise of risk-controlled thresholds kept, and would a broken one be caught?

The training images are divided once more: heads, gates, and a population that neither of them saw. From the population
half is drawn 200 times to choose thresholds, and the other half shows what they lose; see `risk_check`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from lraee.bundle.strict_json import encode
from lraee_toolchain.early_exit.exits import score
from lraee_toolchain.early_exit.outcomes import ExitScores, Point
from lraee_toolchain.early_exit.risk_control import risk_controlled_point
from lraee_toolchain.early_exit.routing import fit_routing
from lraee_toolchain.early_exit.task import ExitTask
from lraee_toolchain.early_exit.threshold_search import choose, search
from lraee_toolchain.evaluation.paper_tables import Tower
from lraee_toolchain.evaluation.risk_check import check_promise

HEADS_SHARE, GATES_SHARE = 0.5, 0.15
"""Of the training images; the rest is the population."""

EPSILONS = (0.005, 0.01)
"""Accuracy that may be lost."""

DELTA = 0.1

STEPS_OF_PROMISES = len(EPSILONS) + 1
"""How often `measure_promises` calls `advance`."""


def untested_point(scores: ExitScores, *, epsilon: float, delta: float, seed: int) -> Point:
    """What many would do: the boldest point whose measured drop is within `epsilon`. It proves nothing."""
    chosen = choose(search(scores, quick=True), max_drop=epsilon, safe=False)
    assert chosen is not None  # all exits closed loses nothing
    return chosen


def measure_promises(tower: Tower, setting: ExitTask, *, advance: Callable[[int], None]) -> dict[str, Any]:
    """Check the promise for every one of `EPSILONS`, and the untested chooser at the last.

    Args:
        tower: the precision to measure on.
        setting: labels, costs, options.
        advance: called `STEPS_OF_PROMISES` times.

    Returns:
        ``{"population": images, "checks": [...]}``, JSON-able; see `promise.PromiseCheck`.
    """
    count = len(tower.pool.features.embedding)
    order = np.random.default_rng([setting.config.seed, 2405]).permutation(count).astype(np.int64)
    first, second = round(HEADS_SHARE * count), round((HEADS_SHARE + GATES_SHARE) * count)
    heads, gating, population = (
        tower.pool.rows(np.sort(rows)) for rows in (order[:first], order[first:second], order[second:])
    )
    routing = fit_routing(tower.task(setting, setting.config.seed), heads, gating)
    scores = score(setting, routing.exits, population)
    choosers = [(f"risk-controlled, {100 * epsilon:g} points", epsilon, risk_controlled_point) for epsilon in EPSILONS]
    choosers.append(("no test: the boldest that measures well", EPSILONS[-1], untested_point))
    checks = []
    for name, epsilon, chooser in choosers:
        check = check_promise(scores, epsilon=epsilon, delta=DELTA, seed=setting.config.seed, choose=chooser)
        checks.append({"name": name, **encode(check), "kept": check.kept})
        advance(1)
    return {"population": len(scores.full_good), "checks": checks}
