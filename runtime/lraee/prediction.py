"""Describes the answer for one image: its label, its confidence, where it left the tower, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.engine.orchestrator import Answers
from lraee.labels.matrix import Labels


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """Holds the answer for one image."""

    label: str
    """The most likely label."""
    score: float
    """Its probability, 0 to 1. A share of all labels, comparable across exits (each has its own temperature); or where
    ``manifest.probabilities`` is ``sigmoid`` (SigLIP), how likely this label fits, independent of the others."""
    top: tuple[tuple[str, float], ...]
    """The most likely labels with their probabilities, best first."""
    index: int
    """Position of `label` among the model's labels."""
    exit_block: int
    """Block after which the image left, counted from 1; the depth of the tower when it ran to the end."""
    early: bool
    """Whether it left through an exit; False at full depth."""
    gate: float | None
    """Value of the gate where it left, 0 to 1; None at full depth."""
    flops: int
    """FLOPs of what ran for this image: stem, blocks, visited exits, tail; multiply-add = 2, GEMMs only."""
    embedding: NDArray[np.float32]
    """(embed_dim,) float32, unit length."""
    position: int = 0
    """Position of the image in the call, from 0: it identifies images when answers come out of order."""


def prediction_of(
    answers: Answers, row: int, manifest: Manifest, labels: Labels, *, top: int, position: int = 0
) -> Prediction:
    """Describe one row of the answers.

    Args:
        answers: of a batch.
        row: the image's place in the batch.
        manifest: of the bundle that answered, for the FLOPs.
        labels: those of the answers' probabilities.
        top: how many labels `Prediction.top` lists.
        position: the image's place in the call.
    """
    probabilities = answers.probabilities[row]
    best = np.argsort(-probabilities, kind="stable")[:top]
    index, early = int(best[0]), bool(answers.early[row])
    return Prediction(
        label=labels.names[index],
        score=float(probabilities[index]),
        top=tuple((labels.names[i], float(probabilities[i])) for i in best),
        index=index,
        exit_block=int(answers.exit_block[row]),
        early=early,
        gate=float(answers.gate[row]) if early else None,
        flops=flops_of_row(answers, row, manifest),
        embedding=answers.embedding[row],
        position=position,
    )


def flops_of_row(answers: Answers, row: int, manifest: Manifest) -> int:
    """Add up the FLOPs of the parts that ran for one image of a batch."""
    schedule = manifest.schedule(answers.schedule)
    parts = {exit.block: exit.part for exit in schedule.exits}
    names = ["stem", *schedule.blocks[: int(answers.blocks_run[row])]]
    names += [parts[block] for block in answers.visited[row]]
    names += [] if answers.early[row] else [schedule.tail]
    return sum(manifest.flops_of(name, answers.probabilities.shape[1]) for name in names)
