"""Each image leaves once consecutive exits have agreed on its label often enough: PABEE.

Source: Zhou et al., *BERT Loses Patience: Fast and Robust Inference with Early Exit*, arXiv 2006.04152: a counter rises
when an exit predicts what the exit before it predicted, and starts again at 0 when it does not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.checks import is_count
from lraee.errors import PolicyError
from lraee.policies.base import Verdict


@dataclass(frozen=True, slots=True)
class Patience:
    """Lets images leave when consecutive exits agree; all exits are visited."""

    agreements: int
    """How many times in a row an exit must agree with the one before it; n of them need n + 1 exits."""

    def bind(self, manifest: Manifest) -> PatienceRoute:
        """Check that the bundle has enough exits for the agreements, and start to count."""
        if not is_count(self.agreements):
            raise PolicyError(f"the patience is {self.agreements} agreements, wanted at least 1")
        if self.agreements >= len(manifest.exits):
            raise PolicyError(
                f"a patience of {self.agreements} needs {self.agreements + 1} exits, this bundle has "
                f"{len(manifest.exits)}; ask for less, or export with more exits"
            )
        return PatienceRoute(self.agreements)


class PatienceRoute:
    """Remembers for one batch what the last exit predicted, and how many exits in a row have agreed."""

    def __init__(self, agreements: int) -> None:
        """Start with no exit seen.

        Args:
            agreements: after which an image leaves.
        """
        self.agreements = agreements
        self._rows: NDArray[np.intp] | None = None
        self._predicted: NDArray[np.intp] = np.zeros(0, np.intp)
        self._agreed: NDArray[np.intp] = np.zeros(0, np.intp)

    def visits(self, block: int) -> bool:
        """Visit every exit."""
        return True

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Let images leave on whose label enough exits in a row have agreed."""
        predicted = verdict.probabilities.argmax(axis=1)
        agreed = np.zeros(len(predicted), np.intp)
        if self._rows is not None:
            before = np.searchsorted(self._rows, verdict.rows)  # rows keep their order and only become fewer
            agreed = np.where(predicted == self._predicted[before], self._agreed[before] + 1, 0)
        self._rows, self._predicted, self._agreed = verdict.rows, predicted, agreed
        return np.asarray(agreed >= self.agreements)
