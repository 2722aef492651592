"""Each image leaves at the first exit with probabilities of low entropy: BranchyNet's criterion.

leave at the first L with -sum_k p_L log p_L <= threshold          (arXiv 1709.01686)

Differs from `confidence` in looking at all probabilities, not only at the largest; the unit is nats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.checks import is_number
from lraee.errors import PolicyError
from lraee.policies.base import Verdict


def entropy_nats(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the entropy of each row, (batch,) float32, 0 to the logarithm of the number of labels.

    Args:
        probabilities: (batch, labels) float32.

    >>> entropy_nats(np.array([[1, 0], [0.5, 0.5]], np.float32)).round(3).tolist() == [0.0, np.float32(0.693)]
    True
    """
    logarithms = np.log(np.where(probabilities > 0, probabilities, np.float32(1)))
    return np.asarray(np.abs((probabilities * logarithms).sum(axis=1)), np.float32)


@dataclass(frozen=True, slots=True)
class Entropy:
    """Lets images leave by the entropy of their probabilities."""

    threshold: float
    """Nats; an image leaves when its entropy is at most this."""

    def bind(self, manifest: Manifest) -> Entropy:
        """Check the threshold and that there are exits."""
        if not is_number(self.threshold) or not 0 <= self.threshold < np.inf:
            raise PolicyError(f"the entropy threshold is {self.threshold}, wanted nats from 0 on, such as 0.5")
        if not manifest.exits:
            raise PolicyError("an entropy threshold needs exits, and this bundle has none; run it at full depth")
        if manifest.probabilities != "softmax":
            raise PolicyError(
                "an entropy needs probabilities that add up to 1, and those of this bundle are a sigmoid for each "
                "label; use Adaptive or Confidence"
            )
        return self

    def visits(self, block: int) -> bool:
        """Visit every exit."""
        return True

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Let images leave whose entropy is at most the threshold."""
        return np.asarray(entropy_nats(verdict.probabilities) <= np.float32(self.threshold))
