"""What the check of risk control measured; see `lraee_toolchain.evaluation.risk_check`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskCheck:
    """How often thresholds lost more than `epsilon`, which risk control allows with probability `delta` at most."""

    epsilon: float
    delta: float
    repeats: int
    images: int
    """Hold-out images of each repeat."""
    exceeded: float
    """Share of repeats whose drop on the hold-out is above `epsilon`."""
    exceeded_on_pool: float
    """The same for the drop over the whole pool."""
    limit: float
    """Largest share that sampling error explains where `delta` is kept."""
    mean_drop: float
    """On the hold-out, -1 to 1; below 0 when routing is better than full depth."""
    mean_saved: float
    """Share of full-depth FLOPs on the hold-out."""
    closed: float
    """Share of repeats that opened no exit."""

    @property
    def kept(self) -> bool:
        """Whether neither share is above the limit."""
        return max(self.exceeded, self.exceeded_on_pool) <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskChecks:
    """Checks of risk control, and of a chooser that proves nothing."""

    population: int
    """Images that hold-outs are drawn from."""
    controlled: tuple[RiskCheck, ...]
    """Of thresholds that the betting test of risk control allows."""
    uncontrolled: RiskCheck
    """Of thresholds chosen by their measured drop alone, which should be caught."""
