"""Class-based thresholding: labels that are told apart easily may leave with less confidence.

Source: Görmez and Koyuncu, *Class Based Thresholding in Early Exit Semantic Segmentation Networks*, arXiv 2210.15621,
whose details are filled in here. For each class we average the probability vectors over its training images and over
all exits; the largest entry less the second largest tells how easy the class is. The easiest class gets the threshold
`low`, the hardest `high`, and the others lie between in proportion. The paper does so for pixels, here it is images.

``--thresholds per-class`` writes such a table, on the gate, into the bundle as `lraee.bundle.manifest.Threshold`'s
``per_class``; `lraee_toolchain.competitors.class_based` compares the same rule with the other methods.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.early_exit.exits import TrainedExit, answers_in_chunks, score
from lraee_toolchain.early_exit.outcomes import Point, decided, evaluate
from lraee_toolchain.early_exit.task import ExitTask, FloatArray, Material

LEVELS = 24
"""Quantiles of the score that `low` and `high` are taken from."""

DECIMALS = 6
"""Of thresholds in a bundle: more would make the manifest of a thousand labels longer and decide the same."""


def class_ease(task: ExitTask, exits: Sequence[TrainedExit], training: Material) -> NDArray[np.float64]:
    """Measure how easily each label is told from its nearest rival, (labels,) 0 to 1; 0 for labels without images.

    Args:
        task: the labels.
        exits: whose probabilities are averaged.
        training: material of the heads' split; without classes the float tower's label counts.
    """
    wanted, labels = training.wanted, len(task.labels)
    total = np.zeros((labels, labels))
    for trained in exits:
        for rows, answers in answers_in_chunks(task, trained, training.features):
            np.add.at(total, wanted[rows], answers.probabilities)
    images = np.bincount(wanted, minlength=labels)
    return separation(total / np.maximum(images * len(exits), 1)[:, None])


def separation(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Subtract the second largest entry of each row from the largest.

    >>> separation(np.array([[0.9, 0.05, 0.05], [0.45, 0.5, 0.05]])).round(2).tolist()
    [0.85, 0.05]
    """
    top = np.sort(means, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def scaled(ease: NDArray[np.float64], *, low: float, high: float) -> NDArray[np.float64]:
    """Spread thresholds over the labels: `low` for the easiest, `high` for the hardest.

    >>> scaled(np.array([0.8, 0.6, 0.4]), low=0.5, high=0.9).round(2).tolist()
    [0.5, 0.7, 0.9]
    """
    spread = float(np.ptp(ease))
    hardness = (ease.max() - ease) / spread if spread > 0 else np.zeros_like(ease)
    return np.asarray(low + (high - low) * hardness)


def class_tables(score: FloatArray, ease: NDArray[np.float64]) -> Iterator[NDArray[np.float64]]:
    """Thresholds by label for all pairs of `low` and `high`; an equal pair is one threshold for all labels.

    Args:
        score: (images, exits), higher is surer; its quantiles are the limits.
        ease: (labels,) from `class_ease`.
    """
    levels = np.unique(np.quantile(score, np.linspace(0, 1, LEVELS)))
    for low, high in itertools.combinations_with_replacement(levels.tolist(), 2):
        yield scaled(ease, low=low, high=high)


def reaches(score: FloatArray, predicted: NDArray[np.int64], table: Sequence[float]) -> NDArray[np.bool_]:
    """Whether each score reaches the threshold of the label predicted there, (images, exits)."""
    return np.asarray(score >= np.asarray(table, np.float32)[predicted])


def class_points(
    task: ExitTask, exits: Sequence[TrainedExit], gating: Material, ease: NDArray[np.float64]
) -> list[Point]:
    """Measure every table of thresholds on the gating split; all exits are visited.

    Args:
        task: labels and costs.
        exits: at least one.
        gating: material of the gating split.
        ease: (labels,) from `class_ease`.
    """
    scores = score(task, exits, gating)
    predicted = np.empty(scores.gate.shape, np.int64)
    for column, trained in enumerate(exits):
        for rows, answers in answers_in_chunks(task, trained, gating.features):
            predicted[rows, column] = answers.probabilities.argmax(axis=1)
    points = []
    for table in class_tables(scores.gate, ease):
        thresholds = table.round(DECIMALS).tolist()
        passes = reaches(scores.gate, predicted, thresholds)
        point = evaluate(*decided(scores, passes, np.ones(len(exits), np.bool_)))
        points.append(replace(point, thresholds=(max(thresholds),) * len(exits), per_class=tuple(thresholds)))
    return points
