"""Every image runs to the end of the tower; no exit is visited."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.policies.base import Verdict, check_schedule


@dataclass(frozen=True, slots=True)
class Full:
    """Runs every image at full depth."""

    schedule: str | None = None
    """Merging schedule to run under; None merges nothing."""

    def bind(self, manifest: Manifest) -> Full:
        """Return the policy itself, which is its own route."""
        check_schedule(self.schedule, manifest)
        return self

    def visits(self, block: int) -> bool:
        """Visit no exit."""
        return False

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Let no image leave."""
        return np.zeros(len(verdict.gate), np.bool_)
