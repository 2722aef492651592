"""Ways to leave early, compared at the same FLOPs on the same cached features.

Each method sweeps its rules over the gating split. Of those that save at least the wanted share of FLOPs there, the one
with the best difference to full depth (less three standard errors, as for the bundle's own points) is applied to the
evaluation split, which nothing else has looked at. What it saves there is measured anew and stands beside the accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lraee_toolchain.competitors.class_based import ClassBased, class_ease
from lraee_toolchain.competitors.monotone import Monotone
from lraee_toolchain.competitors.pabee import Pabee
from lraee_toolchain.competitors.rules import ByScore, Method, Outputs, Routed, Rule, Score, outputs_of, point_of, route
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.early_exit.routing import Costs, FloatArray, Material, TrainedExit, train_exits
from lraee_toolchain.early_exit.threshold_search import Point, search

LEVELS = 200
"""Thresholds that a method with a single one tries: quantiles of the score over all exits."""


@dataclass(frozen=True, slots=True)
class Shared:
    """One threshold for all exits."""

    score: Score

    def rules(self, gating: Outputs) -> list[ByScore]:
        """By rising threshold."""
        levels = np.unique(np.quantile(gating.sureness(self.score), np.linspace(0, 1, LEVELS)))
        return [ByScore(self.score, (level,) * gating.exits) for level in levels.tolist()]


@dataclass(frozen=True, slots=True)
class Searched:
    """One threshold for each exit, searched together as for the bundle (`thresholds.search`)."""

    score: Score

    def rules(self, gating: Outputs) -> list[ByScore]:
        """What is best for some price on FLOPs."""
        scores = replace(gating.scores, gate=gating.sureness(self.score))
        return [ByScore(self.score, point.thresholds) for point in search(scores)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """A rule and what it does on the gating split."""

    rule: Rule
    point: Point
    """Without thresholds, which are the rule's."""


def sweep(method: Method, gating: Outputs) -> list[Swept]:
    """Every rule that a method would try, by rising saving."""
    swept = [Swept(rule=rule, point=point_of(rule, gating)) for rule in method.rules(gating)]
    return sorted(swept, key=lambda tried: (tried.point.saved, tried.point.accuracy))


def at_saving(swept: Sequence[Swept], saved: float) -> Swept | None:
    """The rule that loses least while saving at least a share of FLOPs; None when none saves so much."""
    fitting = [tried for tried in swept if tried.point.saved >= saved]
    return max(fitting, key=lambda tried: tried.point.safe_difference, default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A method and what its exits say; methods with heads of their own have outputs of their own."""

    method: Method
    gating: Outputs
    evaluation: Outputs


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Comparison:
    """One method at one wanted saving."""

    name: str
    wanted: float
    """Share of full-depth FLOPs to be saved on the gating split."""
    swept: tuple[Swept, ...]
    """All rules of the method on the gating split, by rising saving."""
    chosen: Swept | None
    """None when no rule saves so much."""
    routed: Routed | None
    """`chosen` on the evaluation split."""
    saved: float | None
    """There, share of full-depth FLOPs."""


def compare(entries: Mapping[str, Entry], *, wanted: Sequence[float]) -> list[Comparison]:
    """Sweep every method, choose at the wanted savings, apply to the evaluation split.

    Args:
        entries: by the name of the row.
        wanted: shares of full-depth FLOPs that must be saved on the gating split, 0 to 1.

    Returns:
        For each method one comparison for each of `wanted`, in their order.
    """
    rows = []
    for name, entry in entries.items():
        swept = tuple(sweep(entry.method, entry.gating))
        for share in wanted:
            chosen = at_saving(swept, share)
            routed = None if chosen is None else route(chosen.rule, entry.evaluation)
            saved = None if routed is None else float(1 - routed.flops.mean() / entry.evaluation.scores.full_flops)
            rows.append(Comparison(name=name, wanted=share, swept=swept, chosen=chosen, routed=routed, saved=saved))
    return rows


def standard_entries(
    exits: Sequence[TrainedExit],
    heads: Material,
    gating: Material,
    evaluation: Material,
    labels: FloatArray,
    *,
    logit_scale: float,
    costs: Costs,
    config: ExportConfig,
    seed: int,
    int8: bool = True,
    information_to_noise: Sequence[float] | None = None,
) -> dict[str, Entry]:
    """All methods behind the same blocks; heads that read [CLS] are trained for CLS-EE.

    Args:
        exits: trained on `heads`, with gates fitted on `gating`.
        heads: material of the heads' split.
        gating: material of the gating split.
        evaluation: material of the evaluation split.
        labels: (labels, embed_dim) unit text embeddings.
        logit_scale: factor on the cosine.
        costs: FLOPs of the parts.
        config: for the training of the [CLS] heads.
        seed: of the [CLS] heads.
        int8: quantize the [CLS] heads.
        information_to_noise: INR of the block before each exit; None leaves the monotone LCT out.
    """
    blocks = [trained.block for trained in exits]
    class_exits = train_exits(
        heads, gating, labels, blocks, reads="cls", logit_scale=logit_scale, config=config, seed=seed, int8=int8
    )

    def both(asked: Sequence[TrainedExit]) -> tuple[Outputs, Outputs]:
        splits = (gating, evaluation)
        first, second = (outputs_of(asked, s, labels, logit_scale=logit_scale, costs=costs) for s in splits)
        return first, second

    own, class_token = both(exits), both(class_exits)
    ease = class_ease(exits, heads, labels, logit_scale=logit_scale)
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
