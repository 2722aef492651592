"""A rule says which images leave where, given what all exits answer: the offline twin of a run-time policy.

Every exit's answer to every image is computed once (`Outputs`); a rule is then applied in microseconds, so whole
families of them can be tried. A `Method` is such a family: it reads the gating split and gives the rules it would try.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lraee.policies.entropy import entropy_nats
from lraee_toolchain.early_exit.routing import Costs, FloatArray, Material, TrainedExit, answers_of, score
from lraee_toolchain.early_exit.threshold_search import ExitScores, Point, evaluate, outcome

Score: TypeAlias = Literal["gate", "confidence", "entropy"]
"""How sure an exit is: the learned gate, the largest probability, or the entropy."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """What the exits say of one split, and what it costs to ask them."""

    scores: ExitScores
    predicted: NDArray[np.int64]
    """(images, exits) label index."""
    confidence: FloatArray
    """(images, exits) float32, largest probability."""
    entropy: FloatArray
    """(images, exits) float32, nats."""

    @property
    def exits(self) -> int:
        """How many there are."""
        return len(self.scores.blocks)

    def sureness(self, score: Score) -> FloatArray:
        """(images, exits) float32 that rises with sureness; of ``entropy`` the negative."""
        if score == "entropy":
            return -self.entropy
        return self.confidence if score == "confidence" else self.scores.gate


def outputs_of(
    exits: Sequence[TrainedExit], material: Material, labels: FloatArray, *, logit_scale: float, costs: Costs
) -> Outputs:
    """Ask every exit about every image of a split.

    Args:
        exits: by rising block, at least one.
        material: of the split.
        labels: (labels, embed_dim) unit text embeddings.
        logit_scale: factor on the cosine.
        costs: FLOPs of the parts.
    """
    answers = (answers_of(trained, material.features, labels, logit_scale).probabilities for trained in exits)
    return outputs_from(answers, score(exits, material, labels, logit_scale, costs))


def outputs_from(probabilities: Iterable[FloatArray], scores: ExitScores) -> Outputs:
    """Keep of each exit's probabilities what rules look at, so that a thousand labels need not stay in memory.

    Args:
        probabilities: (images, labels) of each exit, at least one, in the order of the exits.
        scores: gates, what is good, and costs.
    """
    seen = [(row.argmax(axis=1), row.max(axis=1), entropy_nats(row)) for row in probabilities]
    predicted, confidence, entropy = (np.stack(column, axis=1) for column in zip(*seen, strict=True))
    return Outputs(scores=scores, predicted=predicted.astype(np.int64), confidence=confidence, entropy=entropy)


class Rule(Protocol):
    """A finished decision about leaving."""

    def passes(self, outputs: Outputs) -> NDArray[np.bool_]:
        """(images, exits): whether the image would leave there if it got that far."""
        ...

    def visits(self, exits: int) -> NDArray[np.bool_]:
        """(exits,): which exits are evaluated at all, and paid for."""
        ...


class Method(Protocol):
    """A family of rules."""

    def rules(self, gating: Outputs) -> Sequence[Rule]:
        """What the method would try, found on the gating split alone."""
        ...


@dataclass(frozen=True, slots=True)
class ByScore:
    """Leave at the first exit that is sure enough: one threshold for each exit."""

    score: Score
    thresholds: tuple[float, ...]
    """On the scale of `Outputs.sureness`, so for ``entropy`` the negative of nats; infinity closes the exit."""

    def passes(self, outputs: Outputs) -> NDArray[np.bool_]:
        """The sureness reaches the exit's threshold."""
        return np.asarray(outputs.sureness(self.score) >= np.asarray(self.thresholds, np.float32))

    def visits(self, exits: int) -> NDArray[np.bool_]:
        """Exits whose threshold is finite."""
        return np.isfinite(self.thresholds)


@dataclass(frozen=True, slots=True, eq=False)
class Routed:
    """What a rule does to the images of a split."""

    good: NDArray[np.float64]
    """(images,) 1 where the answer is right, or agrees with FP32."""
    flops: NDArray[np.float64]
    """(images,) with all visits of exits."""
    where: NDArray[np.intp]
    """(images,) position of the exit; the number of exits at full depth."""


def route(rule: Rule, outputs: Outputs) -> Routed:
    """Apply a rule image by image."""
    return Routed(*outcome(*_as_thresholds(rule, outputs)))


def point_of(rule: Rule, outputs: Outputs) -> Point:
    """Accuracy and saving of a rule on a split; the point's thresholds are empty, the rule has them."""
    return replace(evaluate(*_as_thresholds(rule, outputs)), thresholds=())


def _as_thresholds(rule: Rule, outputs: Outputs) -> tuple[ExitScores, list[float]]:
    """The rule's decisions as a gate of 0 and 1, so that costs are counted in one place only."""
    decided = replace(outputs.scores, gate=rule.passes(outputs).astype(np.float32))
    return decided, [0.5 if visited else np.inf for visited in rule.visits(outputs.exits)]
