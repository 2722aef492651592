"""Which image leaves where, and at what cost: the vectorised twin of the run-time loop.

`lraee.engine.orchestrator.run` walks through blocks and exits with the images that are still inside. Here the answers
of all exits are known already, and `outcome` decides for all images at once, so that a search can try thousands of
thresholds a second. Nothing else in the toolchain decides this. `tests/toolchain/competitors/test_rules.py` runs both
on the same answers and holds that they agree (``TWINS``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

SAFETY = 3.0
"""Standard errors taken off a difference before it is believed, since it was the best of many."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ExitScores:
    """What the exits would do for the images of one split."""

    blocks: tuple[int, ...]
    """Blocks that the exits stand after, rising."""
    gate: NDArray[np.float32]
    """(images, exits)."""
    good: NDArray[np.float64]
    """(images, exits) 1 where the exit's answer is right, or agrees with FP32."""
    full_good: NDArray[np.float64]
    """(images,) the same at full depth."""
    exit_flops: NDArray[np.float64]
    """(exits,) of leaving there, without the exits visited before."""
    visit_flops: NDArray[np.float64]
    """(exits,) of evaluating each exit."""
    full_flops: float
    """FLOPs at full depth, without exits."""
    merged_good: NDArray[np.float64] | None = None
    """(images,) whether the end of the tower is right where a schedule merges tokens; None where it is `full_good`."""
    merged_flops: float | None = None
    """FLOPs at full depth under that schedule, without exits; None where they are `full_flops`."""
    schedule: str | None = None
    """Name of that schedule; None where nothing is merged."""
    agreement: ExitScores | None = None
    """The same with agreement with FP32 in place of right answers; None where `good` says agreement itself."""

    @property
    def steady(self) -> ExitScores:
        """The same with the mean of right answers and agreement with FP32; see `Point.steady_difference`."""
        other = self.agreement
        if other is None:
            return self
        merged = None if self.merged_good is None else (self.end_good + other.end_good) / 2
        return replace(
            self,
            good=(self.good + other.good) / 2,
            full_good=(self.full_good + other.full_good) / 2,
            merged_good=merged,
            agreement=None,
        )

    @property
    def end_good(self) -> NDArray[np.float64]:
        """(images,) 1 where an image that leaves nowhere is right."""
        return self.full_good if self.merged_good is None else self.merged_good

    @property
    def end_flops(self) -> float:
        """FLOPs of an image that leaves nowhere, without exits."""
        return self.full_flops if self.merged_flops is None else self.merged_flops

    def rows(self, index: NDArray[np.int64]) -> ExitScores:
        """Select images by their index."""
        merged = None if self.merged_good is None else self.merged_good[index]
        return replace(
            self,
            gate=self.gate[index],
            good=self.good[index],
            full_good=self.full_good[index],
            merged_good=merged,
            agreement=None if self.agreement is None else self.agreement.rows(index),
        )

    def subset(self, keep: Sequence[int]) -> ExitScores:
        """Select exits by position."""
        index = list(keep)
        return replace(
            self,
            blocks=tuple(self.blocks[i] for i in index),
            gate=self.gate[:, index],
            good=self.good[:, index],
            exit_flops=self.exit_flops[index],
            visit_flops=self.visit_flops[index],
            agreement=None if self.agreement is None else self.agreement.subset(keep),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Outcome:
    """What a decision about leaving does to each image of a split."""

    good: NDArray[np.float64]
    """(images,) 1 where the answer is right, or agrees with FP32."""
    flops: NDArray[np.float64]
    """(images,) with all visits of exits."""
    where: NDArray[np.intp]
    """(images,) position of the exit where the image leaves; the number of exits at full depth."""
    saved: float
    """Share of full-depth FLOPs, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Thresholds and what they do on the split they were chosen on."""

    thresholds: tuple[float, ...]
    """One for each exit; infinity closes the exit."""
    accuracy: float
    """0 to 1."""
    saved: float
    """Share of full-depth FLOPs, 0 to 1, visits of exits counted."""
    difference: float
    """Accuracy less that at full depth, -1 to 1."""
    standard_error: float
    """Of the paired difference. It counts one more image that differs when any leaves or is merged, since no difference
    among few images proves little."""
    steady: tuple[float, float] | None = None
    """Difference and standard error where an answer counts half for being right and half for being that of FP32; None
    where they are those above."""
    per_class: tuple[float, ...] | None = None
    """One threshold for each label, the same at every exit, instead of `thresholds`."""
    schedule: str | None = None
    """Merging schedule whose exits these are thresholds of; None where nothing is merged."""

    @property
    def safe_difference(self) -> float:
        """The difference less `SAFETY` standard errors."""
        return self.difference - SAFETY * self.standard_error

    @property
    def steady_difference(self) -> float:
        """The difference where an answer counts half for being right and half for being that of FP32.

        The best of many points on a few thousand images owes part of its right answers to luck, above all those that
        full depth gets wrong. Agreement is met again on other images.
        """
        return self.difference if self.steady is None else self.steady[0]

    @property
    def safe_steady_difference(self) -> float:
        """The steady difference less `SAFETY` of its standard errors."""
        return self.safe_difference if self.steady is None else self.steady[0] - SAFETY * self.steady[1]


def outcome(scores: ExitScores, thresholds: Sequence[float]) -> Outcome:
    """Let every image leave at the first exit whose gate reaches its threshold.

    Exits with infinite thresholds are not visited and cost nothing.
    """
    count = len(scores.blocks)
    passes = scores.gate >= np.asarray(thresholds, np.float32)
    where = np.where(passes.any(axis=1), passes.argmax(axis=1), count) if count else np.zeros(len(passes), np.intp)
    visits = np.cumsum(scores.visit_flops * np.isfinite(np.asarray(thresholds)))
    table = np.append(scores.exit_flops + visits, scores.end_flops + (visits[-1] if count else 0.0))
    flops = table[where]
    saved = float(1 - flops.mean() / scores.full_flops)
    return Outcome(good=_good_at(scores, where), flops=flops, where=where, saved=saved)


def decided(
    scores: ExitScores, passes: NDArray[np.bool_], visited: NDArray[np.bool_]
) -> tuple[ExitScores, list[float]]:
    """Write decisions of any kind as gates of 0 and 1 with thresholds, for `outcome` and `evaluate`.

    Args:
        scores: of the split.
        passes: (images, exits) whether the image would leave there if it got that far.
        visited: (exits,) which exits are evaluated at all.
    """
    return replace(scores, gate=passes.astype(np.float32)), [0.5 if visit else np.inf for visit in visited]


def evaluate(scores: ExitScores, thresholds: Sequence[float]) -> Point:
    """Measure accuracy and FLOPs saved with these thresholds."""
    found = outcome(scores, thresholds)
    difference = found.good - scores.full_good
    differs = scores.merged_good is not None or (found.where < len(scores.blocks)).any()
    point = Point(
        thresholds=tuple(float(t) for t in thresholds),
        accuracy=float(found.good.mean()),
        saved=found.saved,
        difference=float(difference.mean()),
        standard_error=_standard_error(difference, differs=bool(differs)),
        schedule=scores.schedule,
    )
    if (agreement := scores.agreement) is None:
        return point
    steady = (difference + _good_at(agreement, found.where) - agreement.full_good) / 2
    error = _standard_error(steady, differs=bool(differs))
    return replace(point, steady=(float(steady.mean()), error))


def _standard_error(difference: NDArray[np.float64], *, differs: bool) -> float:
    """Of the mean of paired differences; one image more counts that might have differed, if any leaves or is merged."""
    return float(np.sqrt(np.square(difference - difference.mean()).sum() + float(differs)) / len(difference))


def _good_at(scores: ExitScores, where: NDArray[np.intp]) -> NDArray[np.float64]:
    """Take the answer of each image where it leaves, (images,)."""
    good = np.concatenate([scores.good, scores.end_good[:, None]], axis=1)
    return np.asarray(good[np.arange(len(where)), where])


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """Keep the points that no other beats in both accuracy and FLOPs saved, by rising saving."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (-p.saved, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front[::-1]
