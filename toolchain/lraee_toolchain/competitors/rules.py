"""A rule says which images leave where, given what all exits answer: the vectorised twin of a run-time policy.

Every exit's answer to every image is computed once (`Outputs`); a rule is then applied in microseconds, so whole
families of them can be tried. A `Method` is such a family: it reads the gating split and gives the rules it would try.
`tests/toolchain/competitors/test_rules.py` runs each rule and its policy on the same answers (``TWINS``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lraee.policies.entropy import entropy_nats
from lraee_exporters.graphs.exit import HeadInput
from lraee_toolchain.early_exit.exits import TrainedExit, answers_in_chunks, score
from lraee_toolchain.early_exit.outcomes import ExitScores, Outcome, Point, decided, evaluate, outcome
from lraee_toolchain.early_exit.task import ExitTask, FloatArray, Material

Score: TypeAlias = Literal["gate", "confidence", "entropy"]
"""What the confidence score is: the learned gate, the largest probability, or the negative entropy."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outputs:
    """What the exits say of one split, and what it costs to evaluate them."""

    scores: ExitScores
    predicted: NDArray[np.int64]
    """(images, exits) label index."""
    confidence: FloatArray
    """(images, exits) float32, largest probability."""
    entropy: FloatArray
    """(images, exits) float32, nats."""
    reads: tuple[HeadInput, ...] = ()
    """What each head reads; empty where nobody said."""

    @property
    def exits(self) -> int:
        """The number of exits."""
        return len(self.scores.blocks)

    def confidence_score(self, score: Score) -> FloatArray:
        """(images, exits) float32, higher is surer; the negative entropy for ``entropy``."""
        if score == "entropy":
            return -self.entropy
        return self.confidence if score == "confidence" else self.scores.gate


def outputs_of(task: ExitTask, exits: Sequence[TrainedExit], material: Material) -> Outputs:
    """Evaluate every exit for every image of a split.

    Args:
        task: labels and costs.
        exits: by rising block, at least one.
        material: of the split.
    """
    scores = score(task, exits, material)

    def pieces(trained: TrainedExit) -> Iterator[FloatArray]:
        return (answers.probabilities for _, answers in answers_in_chunks(task, trained, material.features))

    return replace(outputs_from(map(pieces, exits), scores), reads=tuple(one.head.reads for one in exits))


def outputs_from(probabilities: Iterable[Iterable[FloatArray]], scores: ExitScores) -> Outputs:
    """Reduce each exit's probabilities to what rules read, so that a thousand labels need not stay in memory.

    Args:
        probabilities: of each exit, at least one, in the order of the exits: pieces of (images, labels), one after the
            other.
        scores: gates, what is good, and costs.
    """
    columns = [_reduced(pieces, len(scores.full_good)) for pieces in probabilities]
    predicted, confidence, entropy = (np.stack(column, axis=1) for column in zip(*columns, strict=True))
    return Outputs(scores=scores, predicted=predicted, confidence=confidence, entropy=entropy)


def _reduced(pieces: Iterable[FloatArray], images: int) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
    """Compute label, largest probability and entropy of each image."""
    predicted = np.empty(images, np.int64)
    confidence, entropy = np.empty(images, np.float32), np.empty(images, np.float32)
    start = 0
    for piece in pieces:
        rows = slice(start, start + len(piece))
        predicted[rows], confidence[rows], entropy[rows] = piece.argmax(axis=1), piece.max(axis=1), entropy_nats(piece)
        start = rows.stop
    return predicted, confidence, entropy


class Rule(Protocol):
    """A decision about leaving without any choice left."""

    def passes(self, outputs: Outputs) -> NDArray[np.bool_]:
        """(images, exits): whether the image would leave there if it got that far."""
        ...

    def visits(self, exits: int) -> NDArray[np.bool_]:
        """(exits,): which exits are evaluated at all, and paid for."""
        ...


class Method(Protocol):
    """A family of rules of which the comparison picks one."""

    def rules(self, gating: Outputs) -> Sequence[Rule]:
        """What the method would try, found on the gating split alone."""
        ...


@dataclass(frozen=True, slots=True)
class ByScore:
    """Leave at the first exit whose confidence score reaches its threshold."""

    score: Score
    thresholds: tuple[float, ...]
    """One for each exit on the scale of `Outputs.confidence_score`; infinity closes the exit."""

    def passes(self, outputs: Outputs) -> NDArray[np.bool_]:
        """Compare the score with the exit's threshold."""
        return np.asarray(outputs.confidence_score(self.score) >= np.asarray(self.thresholds, np.float32))

    def visits(self, exits: int) -> NDArray[np.bool_]:
        """Visit exits whose threshold is finite."""
        return np.isfinite(self.thresholds)


def route(rule: Rule, outputs: Outputs) -> Outcome:
    """Apply a rule to every image."""
    return outcome(*_decided(rule, outputs))


def point_of(rule: Rule, outputs: Outputs) -> Point:
    """Measure accuracy and saving of a rule on a split; the point's thresholds are empty, the rule has them."""
    return replace(evaluate(*_decided(rule, outputs)), thresholds=())


def _decided(rule: Rule, outputs: Outputs) -> tuple[ExitScores, list[float]]:
    return decided(outputs.scores, rule.passes(outputs), rule.visits(outputs.exits))
