"""Class-based thresholding: labels that are told apart easily may leave with less confidence.

Source: Görmez and Koyuncu, *Class Based Thresholding in Early Exit Semantic Segmentation Networks*, arXiv 2210.15621,
whose details are filled in here: for each class the mean of the probability vectors over its training images and over
all exits; its largest entry less its second largest tells how easy the class is; the easiest class gets the threshold
`low`, the hardest `high`, the others lie between in proportion. The paper does so for pixels, here it is images.

With the score ``gate`` the same table of thresholds fits `lraee.bundle.manifest.Threshold.per_class`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.competitors.rules import Outputs, Score
from lraee_toolchain.early_exit.routing import FloatArray, Material, TrainedExit, answers_of

LEVELS = 24
"""Quantiles of the score that `low` and `high` are taken from."""


def class_ease(
    exits: Sequence[TrainedExit], training: Material, labels: FloatArray, *, logit_scale: float
) -> NDArray[np.float64]:
    """How easily each label is told from its nearest rival, (labels,) 0 to 1; 0 for labels without images.

    Args:
        exits: whose probabilities are averaged.
        training: material of the heads' split; without classes the float tower's label counts.
        labels: (labels, embed_dim) unit text embeddings.
        logit_scale: factor on the cosine.
    """
    wanted = training.classes if training.classes is not None else training.teacher.probabilities.argmax(axis=1)
    total = np.zeros((len(labels), len(labels)))
    for trained in exits:
        np.add.at(total, wanted, answers_of(trained, training.features, labels, logit_scale).probabilities)
    images = np.bincount(wanted, minlength=len(labels))
    return separation(total / np.maximum(images * len(exits), 1)[:, None])


def separation(means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest less second largest entry of each row.

    >>> separation(np.array([[0.9, 0.05, 0.05], [0.45, 0.5, 0.05]])).round(2).tolist()
    [0.85, 0.05]
    """
    top = np.sort(means, axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def scaled(ease: NDArray[np.float64], *, low: float, high: float) -> NDArray[np.float64]:
    """Thresholds by label: `low` for the easiest, `high` for the hardest.

    >>> scaled(np.array([0.8, 0.6, 0.4]), low=0.5, high=0.9).round(2).tolist()
    [0.5, 0.7, 0.9]
    """
    spread = float(np.ptp(ease))
    hardness = (ease.max() - ease) / spread if spread > 0 else np.zeros_like(ease)
    return np.asarray(low + (high - low) * hardness)


@dataclass(frozen=True, slots=True)
class ByClass:
    """Leave at the first exit that is sure enough for the label it predicts."""

    score: Score
    thresholds: tuple[float, ...]
    """One for each label, the same at all exits, on the scale of `Outputs.sureness`."""

    def passes(self, outputs: Outputs) -> NDArray[np.bool_]:
        """The sureness reaches the predicted label's threshold."""
        wanted = np.asarray(self.thresholds, np.float32)[outputs.predicted]
        return np.asarray(outputs.sureness(self.score) >= wanted)

    def visits(self, exits: int) -> NDArray[np.bool_]:
        """Every exit."""
        return np.ones(exits, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class ClassBased:
    """All pairs of `low` and `high`; equal ones are one threshold for everybody."""

    ease: NDArray[np.float64]
    """(labels,) from `class_ease`."""
    score: Score = "confidence"

    def rules(self, gating: Outputs) -> list[ByClass]:
        """Pairs of quantiles of the score on the gating split."""
        levels = np.unique(np.quantile(gating.sureness(self.score), np.linspace(0, 1, LEVELS)))
        return [
            ByClass(self.score, tuple(scaled(self.ease, low=low, high=high).tolist()))
            for low, high in itertools.combinations_with_replacement(levels.tolist(), 2)
        ]
