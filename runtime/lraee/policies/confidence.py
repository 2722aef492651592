"""Each image leaves at the first exit that is sure enough of its answer: one threshold on the largest probability.

leave at the first L with max_k p_L >= threshold          (arXiv 2605.26415, the baseline of the learned gate)

Differs from `adaptive` in having no gate and one threshold for all exits, which are all visited.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.checks import is_number
from lraee.errors import PolicyError
from lraee.policies.base import Verdict


@dataclass(frozen=True, slots=True)
class Confidence:
    """Lets images leave by their largest probability."""

    threshold: float
    """0 to 1; an image leaves when its largest probability is at least this."""

    def bind(self, manifest: Manifest) -> Confidence:
        """Check the threshold and that there are exits."""
        if not is_number(self.threshold) or not 0 <= self.threshold <= 1:
            raise PolicyError(f"the confidence threshold is {self.threshold}, wanted a probability from 0 to 1")
        if not manifest.exits:
            raise PolicyError("a confidence threshold needs exits, and this bundle has none; run it at full depth")
        return self

    def visits(self, block: int) -> bool:
        """Visit every exit."""
        return True

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Let images leave whose largest probability reaches the threshold."""
        return np.asarray(verdict.probabilities.max(axis=1) >= np.float32(self.threshold))
