"""What one image got: its label, how sure, where it left the tower, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prediction:
    """The answer for one image."""

    label: str
    """The most likely label."""
    score: float
    """Its probability, 0 to 1. A share of all labels, comparable across exits (each has its own temperature); or where
    ``manifest.probabilities`` is ``sigmoid`` (SigLIP), how likely this label fits at all, whatever the others do."""
    top: tuple[tuple[str, float], ...]
    """The most likely labels with their probabilities, best first."""
    index: int
    """Position of `label` among the model's labels."""
    exit_block: int
    """Block behind which the image left, counted from 1; the depth of the tower when it ran to the end."""
    early: bool
    """Whether it left through an exit; False at full depth."""
    gate: float | None
    """Value of the gate where it left, 0 to 1; None at full depth."""
    flops: int
    """What ran for this image: stem, blocks, every exit visited, tail; multiply-add = 2, matrix products only."""
    embedding: NDArray[np.float32]
    """(embed_dim,) float32, unit length."""
    position: int = 0
    """Place of the image in the call, counted from 0: tells who is who when answers come out of order."""
