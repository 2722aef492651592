"""Ways to leave early, compared at the same FLOPs on the same cached features.

Each method sweeps its rules over the gating split. Of those that save at least the wanted share of FLOPs there, the one
with the best difference to full depth (less three standard errors, as for the bundle's own points) is applied to the
evaluation split, which no other step reads. Accuracy and saving are measured there again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lraee_toolchain.competitors.class_based import ClassBased
from lraee_toolchain.competitors.monotone import Monotone
from lraee_toolchain.competitors.pabee import Pabee
from lraee_toolchain.competitors.rules import ByScore, Method, Outputs, Rule, Score, outputs_of, point_of, route
from lraee_toolchain.early_exit.class_thresholds import class_ease
from lraee_toolchain.early_exit.exits import TrainedExit, train_exits
from lraee_toolchain.early_exit.outcomes import Outcome, Point
from lraee_toolchain.early_exit.task import ExitTask, Material
from lraee_toolchain.early_exit.threshold_search import search

LEVELS = 200
"""Thresholds that a method with a single one tries: quantiles of the score over all exits."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Tries one threshold for all exits."""

    score: Score

    def rules(self, gating: Outputs) -> list[ByScore]:
        """Try quantiles of the score, by rising threshold."""
        levels = np.unique(np.quantile(gating.confidence_score(self.score), np.linspace(0, 1, LEVELS)))
        return [ByScore(self.score, (level,) * gating.exits) for level in levels.tolist()]


@dataclass(frozen=True, slots=True)
class Searched:
    """Searches one threshold for each exit, together as for the bundle (`threshold_search.search`)."""

    score: Score

    def rules(self, gating: Outputs) -> list[ByScore]:
        """Give the rules that are best for some Lagrange weight on FLOPs."""
        scores = replace(gating.scores, gate=gating.confidence_score(self.score))
        return [ByScore(self.score, point.thresholds) for point in search(scores)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A rule and what it does on the gating split."""

    rule: Rule
    point: Point
    """Without thresholds, which are the rule's."""


def sweep(method: Method, gating: Outputs) -> list[Swept]:
    """Measure every rule that a method would try, by rising saving."""
    swept = [Swept(rule=rule, point=point_of(rule, gating)) for rule in method.rules(gating)]
    return sorted(swept, key=lambda tried: (tried.point.saved, tried.point.accuracy))


def at_saving(swept: Sequence[Swept], saved: float) -> Swept | None:
    """Choose the rule that loses least while saving at least a share of FLOPs; None if no rule saves as much."""
    fitting = [tried for tried in swept if tried.point.saved >= saved]
    return max(fitting, key=lambda tried: tried.point.safe_difference, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A method and what its exits say; methods with heads of their own have outputs of their own."""

    method: Method
    gating: Outputs
    evaluation: Outputs


def compare(entries: Mapping[str, Entry], *, wanted: Sequence[float]) -> dict[str, list[Outcome | None]]:
    """Sweep every method, choose at the wanted savings, apply to the evaluation split.

    Args:
        entries: by the name of the row.
        wanted: shares of full-depth FLOPs that must be saved on the gating split, 0 to 1.

    Returns:
        For each method what it does on the evaluation split at each of `wanted`; None where no rule saves as much.
    """
    rows: dict[str, list[Outcome | None]] = {}
    for name, entry in entries.items():
        swept = sweep(entry.method, entry.gating)
        chosen = [at_saving(swept, share) for share in wanted]
        rows[name] = [None if one is None else route(one.rule, entry.evaluation) for one in chosen]
    return rows


def standard_entries(
    task: ExitTask,
    exits: Sequence[TrainedExit],
    heads: Material,
    gating: Material,
    evaluation: Material,
    *,
    information_to_noise: Sequence[float] | None = None,
) -> dict[str, Entry]:
    """Build all methods after the same blocks; heads that read [CLS] are trained for CLS-EE.

    Args:
        task: labels, costs, and options of the [CLS] heads' training.
        exits: trained on `heads`, with gates fitted on `gating`.
        heads: material of the heads' split.
        gating: material of the gating split.
        evaluation: material of the evaluation split.
        information_to_noise: INR of the block before each exit; None leaves the monotone LCT out.
    """
    class_exits = train_exits(task, heads, gating, [trained.block for trained in exits], reads="cls")

    def both(asked: Sequence[TrainedExit]) -> tuple[Outputs, Outputs]:
        return outputs_of(task, asked, gating), outputs_of(task, asked, evaluation)

    own, class_token = both(exits), both(class_exits)
    ease = class_ease(task, exits, heads)
    methods: dict[str, tuple[Method, tuple[Outputs, Outputs]]] = {
        "lra_ee_free": (Searched("gate"), own),
        "lra_ee_shared": (Shared("gate"), own),
        "confidence_shared": (Shared("confidence"), own),
        "confidence_free": (Searched("confidence"), own),
        "entropy_shared": (Shared("entropy"), own),
        "branchynet": (Searched("entropy"), own),
        "pabee": (Pabee(), own),
        "cls_ee": (Shared("confidence"), class_token),
        "class_based_confidence": (ClassBased(ease), own),
        "class_based_gate": (ClassBased(ease, "gate"), own),
    }
    if information_to_noise is not None:
        methods["lra_ee_monotone"] = (Monotone(tuple(information_to_noise)), own)
    return {
        name: Entry(method=method, gating=outputs[0], evaluation=outputs[1])
        for name, (method, outputs) in methods.items()
    }
