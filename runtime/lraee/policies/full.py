"""Every image runs to the end of the tower; no exit is visited."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.policies.base import Verdict


@dataclass(frozen=True, slots=True)
class Full:
    """Full depth."""

    def bind(self, manifest: Manifest) -> Full:
        """Nothing to prepare: the policy is its own route."""
        return self

    def visits(self, block: int) -> bool:
        """Never."""
        return False

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Nobody."""
        return np.zeros(len(verdict.gate), np.bool_)
