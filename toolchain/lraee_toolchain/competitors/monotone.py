"""LCT with two numbers: thresholds that fall as the information-to-noise ratio of the block rises.

    logit(tau_L) = start - slope * u_L,    u_L = log INR(L) scaled to 0 ... 1 over the exits,    slope >= 0

The paper says that layers of high INR tolerate lower thresholds (arXiv 2605.26415, section 3) but not how; this is the
simplest such function. Two numbers overfit the gating split less than one threshold for each exit; the comparison shows
what they lose against the free search. Thresholds move as logits because gates are sigmoids: a step means the same near
0.5 and near 1.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.competitors.rules import ByScore, Outputs

STARTS = 40
"""Thresholds of the exit with the least INR: quantiles of all gates."""

SLOPES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""In logits between the exits of least and greatest INR; 0 is one threshold for all exits."""


def scaled_information(information_to_noise: Sequence[float]) -> NDArray[np.float64]:
    """Scale the logarithm of INR to 0 for the exit with the least and 1 for that with the greatest.

    >>> scaled_information([1.0, 10.0, 100.0]).tolist()
    [0.0, 0.5, 1.0]

    Raises:
        ValueError: a ratio is not above 0.
    """
    ratios = np.asarray(information_to_noise, np.float64)
    if not (np.isfinite(ratios) & (ratios > 0)).all():
        raise ValueError(f"INR of the exits is {list(information_to_noise)}, wanted finite ratios above 0")
    logarithms = np.log(ratios)
    spread = float(np.ptp(logarithms))
    return np.asarray((logarithms - logarithms.min()) / spread) if spread > 0 else np.zeros_like(logarithms)


@dataclass(frozen=True, slots=True)
class Monotone:
    """Tries all pairs of start and slope."""

    information_to_noise: tuple[float, ...]
    """INR of the block before each exit, in the order of the exits."""

    def rules(self, gating: Outputs) -> list[ByScore]:
        """Give thresholds on the gate; exits that no image of the gating split would leave by are closed.

        Raises:
            ValueError: there is not one INR for each exit.
        """
        if len(self.information_to_noise) != gating.exits:
            raise ValueError(
                f"there are {len(self.information_to_noise)} INR for {gating.exits} exits; give one for each exit"
            )
        gate = gating.scores.gate
        fall = scaled_information(self.information_to_noise)
        starts = np.unique(np.clip(np.quantile(gate, np.linspace(0, 1, STARTS)), 1e-6, 1 - 1e-6).astype(np.float64))
        found: dict[tuple[float, ...], None] = {}  # a set that keeps its order
        for start, slope in itertools.product(starts, SLOPES):
            thresholds = 1 / (1 + np.exp(slope * fall - np.log(start / (1 - start))))
            used = (gate >= thresholds.astype(np.float32)).any(axis=0)
            found[tuple(np.where(used, thresholds, np.inf).tolist())] = None
        return [ByScore("gate", thresholds) for thresholds in found]
