"""Every image leaves after the same block, whatever the gate says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest
from lraee.errors import PolicyError
from lraee.policies.base import Verdict, check_schedule


@dataclass(frozen=True, slots=True)
class ExitAt:
    """Lets every image leave at one exit."""

    block: int
    """Counted from 1; the bundle must have an exit there."""
    schedule: str | None = None
    """Merging schedule to run under; None merges nothing."""

    def bind(self, manifest: Manifest) -> ExitAt:
        """Check that the bundle has the exit."""
        check_schedule(self.schedule, manifest)
        if manifest.exit_after(self.block, self.schedule) is None:
            exits = manifest.schedule(self.schedule).exits
            known = ", ".join(str(exit.block) for exit in exits) or "no exits"
            raise PolicyError(f"there is no exit after block {self.block}; this bundle has {known}")
        return self

    def visits(self, block: int) -> bool:
        """Visit only the one exit."""
        return block == self.block

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Let every image leave."""
        return np.ones(len(verdict.gate), np.bool_)
