"""Each image leaves at the first exit whose gate reaches that exit's threshold: LRA-EE.

leave at the first L with G_L >= tau_L          (arXiv 2605.26415, section 3)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee.bundle.manifest import Manifest, Threshold
from lraee.checks import is_number
from lraee.errors import PolicyError
from lraee.policies.base import Verdict


@dataclass(frozen=True, slots=True)
class Adaptive:
    """Leave by the learned gates at one of the bundle's operating points."""

    point: str | None = None
    """Name of an operating point; None takes the bundle's default."""
    thresholds: Mapping[int, float] | None = None
    """Your own thresholds by block, instead of an operating point."""

    def bind(self, manifest: Manifest) -> AdaptiveRoute:
        """Look up the thresholds of the operating point in the manifest."""
        if self.thresholds is not None:
            if self.point is not None:
                raise PolicyError("Adaptive has both a point and thresholds; give one of them")
            if not isinstance(self.thresholds, Mapping):
                raise PolicyError(f"thresholds are {self.thresholds!r}, wanted numbers by block, such as {{8: 0.9}}")
            for block, value in self.thresholds.items():
                if not is_number(value):
                    raise PolicyError(f"the threshold of block {block} is {value!r}, wanted a number, such as 0.9")
                if math.isnan(value):
                    raise PolicyError(f"the threshold of block {block} is NaN, which no gate reaches; give a number")
                if manifest.exit_after(block) is None:
                    known = ", ".join(str(exit.block) for exit in manifest.exits) or "no exits"
                    raise PolicyError(f"there is no exit after block {block}; this bundle has {known}")
            return AdaptiveRoute(
                {block: Threshold(block=block, value=value, per_class=None) for block, value in self.thresholds.items()}
            )
        name = self.point if self.point is not None else manifest.default_point
        for point in manifest.operating_points:
            if point.name == name:
                thresholds = {threshold.block: threshold for threshold in point.thresholds}
                return AdaptiveRoute(thresholds, point.schedule)
        known = ", ".join(point.name for point in manifest.operating_points) or "none"
        raise PolicyError(f"there is no operating point {name!r}; this bundle has {known}")


@dataclass(frozen=True, slots=True)
class AdaptiveRoute:
    """Compares gates with the thresholds of an operating point."""

    thresholds: Mapping[int, Threshold]
    schedule: str | None = None
    """Merging schedule of the operating point."""

    def visits(self, block: int) -> bool:
        """Visit the exits that have a threshold."""
        return block in self.thresholds

    def leaves(self, block: int, verdict: Verdict) -> NDArray[np.bool_]:
        """Let images leave whose gate reaches the threshold of the block, or of the class predicted there.

        Raises:
            PolicyError: the thresholds are by class, for another number of labels.
        """
        threshold = self.thresholds[block]
        if threshold.per_class is None:
            return np.asarray(verdict.gate >= np.float32(threshold.value))
        exported, now = len(threshold.per_class), verdict.probabilities.shape[1]
        if exported != now:
            raise PolicyError(
                f"the thresholds after block {block} are for the {exported} exported labels, the model now has {now}; "
                "give Adaptive your own thresholds"
            )
        classes = verdict.probabilities.argmax(axis=1)
        return np.asarray(verdict.gate >= np.asarray(threshold.per_class, np.float32)[classes])
