"""Class-based thresholding as a method of the comparison; see `lraee_toolchain.early_exit.class_thresholds`.

With the score ``gate`` the same table of thresholds fits `lraee.bundle.manifest.Threshold.per_class`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.competitors.rules import Outputs, Score
from lraee_toolchain.early_exit.class_thresholds import class_tables, reaches


@dataclass(frozen=True, slots=True)
class ByClass:
    """Leave at the first exit whose confidence score reaches the threshold of the label it predicts."""

    score: Score
    thresholds: tuple[float, ...]
    """One for each label, the same at all exits, on the scale of `Outputs.confidence_score`."""

    def passes(self, outputs: Outputs) -> NDArray[np.bool_]:
        """Compare the score with the predicted label's threshold."""
        return reaches(outputs.confidence_score(self.score), outputs.predicted, self.thresholds)

    def visits(self, exits: int) -> NDArray[np.bool_]:
        """Visit every exit."""
        return np.ones(exits, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class ClassBased:
    """Tries all pairs of limits for the easiest and the hardest class; an equal pair is one threshold for all."""

    ease: NDArray[np.float64]
    """(labels,) from `class_thresholds.class_ease`."""
    score: Score = "confidence"

    def rules(self, gating: Outputs) -> list[ByClass]:
        """Take the limits from quantiles of the score on the gating split."""
        tables = class_tables(gating.confidence_score(self.score), self.ease)
        return [ByClass(self.score, tuple(table.tolist())) for table in tables]
