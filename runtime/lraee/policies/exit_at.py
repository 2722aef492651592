"""Every image leaves behind the same block, whatever the gate says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.errors import PolicyError
from lraee.policies.base import Verdict


@dataclass(frozen=True, slots=True)
class ExitAt:
    """Leave at one exit."""

    block: int
    """Counted from 1; the bundle must have an exit there."""

    def bind(self, manifest: Manifest) -> ExitAt:
        """Check that the exit exists."""
        if manifest.exit_behind(self.block) is None:
            known = ", ".join(str(exit.block) for exit in manifest.exits) or "no exits"
            raise PolicyError(f"there is no exit behind block {self.block}; this bundle has {known}")
        return self

    def visits(self, block: int) -> bool:
        """Only the one exit."""
        return block == self.block

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Everybody."""
        return np.ones(len(verdict.gate), np.bool_)
