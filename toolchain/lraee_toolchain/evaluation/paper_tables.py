"""The paper's tables for the user's own model and data: T1 (main), T3 (factorial) and T4 (quadrants).

T1 is measured on FP32, dynamic, naive and strong INT8, so that repairing bad quantization is told apart from what
routing adds. For each seed heads, gates, exits and thresholds are fitted again. Intervals are bootstrapped over images
after averaging the seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_exporters.graphs.exit import POOLED_INPUTS, HeadInput
from lraee_toolchain.config.options import Precision
from lraee_toolchain.early_exit.outcomes import ExitScores, Point, outcome
from lraee_toolchain.early_exit.routing import Routing
from lraee_toolchain.early_exit.threshold_search import choose
from lraee_toolchain.evaluation.metrics import ExitShare, Quadrants, Selectivity, Way, WayRow
from lraee_toolchain.evaluation.setting import Setting, Tower

GoodArray = NDArray[np.float64]

FRONTIER = tuple(range(5, 90, 5))
"""Percent of FLOPs at which ways to run are compared."""

FACTORIAL: tuple[Way, ...] = ("full", "ssa_last_hard", "ssa_last", "routed_ssa_hard", "routed_ssa")
"""Rows of T3, (i) to (v)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """One way to run before it is summarized: per seed and image."""

    good: list[GoodArray]
    """For each seed (images,) 1 where the answer is right."""
    saved: list[float]
    """For each seed the share of full-depth FLOPs."""
    shares: list[tuple[ExitShare, ...]] = field(default_factory=list)
    """For each seed where images left; empty at full depth."""
    left: list[NDArray[np.bool_]] = field(default_factory=list)
    """For each seed (images,) whether the image left early; empty at full depth."""

    @property
    def mean(self) -> GoodArray:
        """(images,) averaged over the seeds."""
        return np.asarray(np.mean(self.good, axis=0))


Frontier: TypeAlias = dict[int, dict[Way, Measured]]
"""By the percent of FLOPs that must be saved, then by the way to run."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ways:
    """Every way to run that the tables compare."""

    precision: Precision
    """The exported one, on which all but full depth and routing is measured."""
    measured: dict[tuple[Way, Precision], Measured]
    routings: list[Routing]
    """LRA-EE's at the exported precision, one for each seed."""
    given: GoodArray | None = None
    """(images,) 1 where the tower as given is right at full depth in FP32; None where its trunk was not tuned."""
    fronts: Frontier = field(default_factory=dict)
    """At the exported precision."""

    def of(self, way: Way) -> Measured:
        """A way to run at the exported precision."""
        return self.measured[way, self.precision]

    def main(self, precisions: Sequence[Precision]) -> tuple[WayRow, ...]:
        """Rows of T1, with `precisions` in that order."""
        rows = [self._row("full", name) for name in precisions]
        rows.append(self._row("ssa_last", self.precision))
        routed: list[tuple[Way, Precision]] = [("routed", name) for name in precisions]
        more: tuple[Way, ...] = ("routed_merged", "routed_label_free", "routed_merged_label_free", "routed_ssa")
        routed += [(way, self.precision) for way in more]
        return (*rows, *(self._row(way, name) for way, name in routed if (way, name) in self.measured))

    def factorial(self) -> tuple[WayRow, ...]:
        """Rows of T3: what the head, the distillation and the routing each bring."""
        return tuple(self._row(way, self.precision) for way in FACTORIAL)

    def frontier(self) -> dict[str, tuple[WayRow, ...]]:
        """Rows of the ways to run at every saving that they reach with every seed."""
        return {
            str(level): tuple(self._summary(way, self.precision, measured) for way, measured in ways.items())
            for level, ways in self.fronts.items()
        }

    def quadrants(self) -> Quadrants:
        """T4, mean of the seeds."""
        good, full = self.of("routed").good, self.of("full").mean
        return Quadrants(
            both_right=float(np.mean([(seed * full).sum() for seed in good])),
            rescue=float(np.mean([(seed * (1 - full)).sum() for seed in good])),
            loss=float(np.mean([((1 - seed) * full).sum() for seed in good])),
            both_wrong=float(np.mean([((1 - seed) * (1 - full)).sum() for seed in good])),
        )

    def selectivity(self) -> tuple[Selectivity, ...]:
        """How right the images of each seed are that left early, and the others, with full depth on the same images."""
        routed, full = self.of("routed"), self.of("full").mean

        def mean(values: GoodArray) -> float | None:
            return float(values.mean()) if len(values) else None

        return tuple(
            Selectivity(
                left_early=float(left.mean()),
                accuracy=float(good.mean()),
                left_accuracy=mean(good[left]),
                stayed_accuracy=mean(good[~left]),
                full_accuracy_of_left=mean(full[left]),
                full_accuracy_of_stayed=mean(full[~left]),
            )
            for good, left in zip(routed.good, routed.left, strict=True)
        )

    def _row(self, way: Way, precision: Precision) -> WayRow:
        return self._summary(way, precision, self.measured[way, precision])

    def _summary(self, way: Way, precision: Precision, measured: Measured) -> WayRow:
        return WayRow(
            way=way,
            precision=precision,
            accuracy=mean_over_images(measured.mean),
            per_seed=tuple(float(seed.mean()) for seed in measured.good),
            flops_saved=float(np.mean(measured.saved)),
            flops_saved_std=float(np.std(measured.saved)),
            difference_to_float=mean_over_images(measured.mean - self.measured["full", "FP32"].mean),
            difference_to_int8=mean_over_images(measured.mean - self.of("full").mean),
            difference_to_ssa_last=mean_over_images(measured.mean - self.of("ssa_last").mean),
            difference_to_given=None if self.given is None else mean_over_images(measured.mean - self.given),
            exit_shares=tuple(measured.shares),
        )


def measure_ways(
    tower: Tower,
    full: Mapping[Precision, GoodArray],
    others: Mapping[Precision, Callable[[], Tower]],
    setting: Setting,
    *,
    given: GoodArray | None = None,
) -> Ways:
    """Measure everything that T1, T3 and T4 are made of.

    Args:
        tower: the precision that is exported.
        full: (images,) of every precision, among them ``FP32``, what is right at full depth.
        others: precisions that exits are fitted on besides; called one at a time, and measured before the next.
        setting: labels, costs and options.
        given: as `Ways.given`.
    """
    main = tower.name
    ways: dict[tuple[Way, Precision], Measured] = {
        ("full", name): Measured(good=[good], saved=[0.0]) for name, good in full.items()
    }
    for name, load in others.items():
        ways["routed", name], _ = lra_ee(load(), setting)
    ways["routed", main], routings = lra_ee(tower, setting)
    fronts: dict[Way, list[Routing]] = {"routed": routings}
    if tower.merged:
        ways["routed_merged", main], fronts["routed_merged"] = lra_ee(tower, setting, merged=True)
    ways["ssa_last", main] = ssa_at_the_end(tower, setting)
    if tower.pool.classes is None:
        ways["routed_label_free", main] = ways["routed", main]
    elif setting.config.tables == "all":
        if tower.merged:
            free, unlearned = tower.without_labels(), setting.without_learned()
            way: Way = "routed_merged_label_free"
            ways[way, main], fronts[way] = lra_ee(free, unlearned, merged=True)
        found = lra_ee(tower.without_labels(), setting.without_learned())
        ways["routed_label_free", main], fronts["routed_label_free"] = found
    paper = setting.with_pooled_heads()
    ways["routed_ssa", main], _ = lra_ee(tower, paper)
    hard = paper.with_config(replace(paper.config, heads=replace(paper.config.heads, distillation=0.0)))
    ways["ssa_last_hard", main] = ssa_at_the_end(tower, hard)
    ways["routed_ssa_hard", main], _ = lra_ee(tower, hard)
    along = along_the_front(tower, setting, fronts)
    return Ways(precision=main, measured=ways, routings=routings, given=given, fronts=along)


def full_depth(tower: Tower) -> Measured:
    """Measure the tower's own head."""
    good = tower.evaluation.full_good.astype(np.float64)
    return Measured(good=[good], saved=[0.0])


def ssa_at_the_end(tower: Tower, setting: Setting) -> Measured:
    """Measure full depth with an SSA head at the last block, trained like every exit."""
    good, costs = [], setting.costs
    for seed in range(setting.config.seeds):
        exits = setting.train(tower, setting.divide(tower, seed), [costs.depth], "patch_mean", seed)
        good.append(setting.score(exits, tower.evaluation).good[:, 0])
    setting.advance(1)
    return Measured(
        good=good, saved=[1 - (costs.up_to(costs.depth) + costs.exits["patch_mean"]) / costs.full] * len(good)
    )


def lra_ee(tower: Tower, setting: Setting, *, merged: bool = False) -> tuple[Measured, list[Routing]]:
    """Measure early exits at the default operating point, where tokens are merged too with `merged`."""
    routings = []
    for seed in range(setting.config.seeds):
        divided = None if merged else setting.divide(tower, seed)
        routings.append(setting.fit_merged(tower, seed) if divided is None else setting.fit(tower, divided, seed))
    setting.advance(1)
    return at_points(tower, setting, routings, [routing.points["balanced"] for routing in routings]), routings


def at_points(tower: Tower, setting: Setting, routings: Sequence[Routing], points: Sequence[Point]) -> Measured:
    """Measure one operating point of each seed on the evaluation split."""
    pairs = zip(routings, points, strict=True)
    return measured_of([(setting.score_point(tower, routing, point), point) for routing, point in pairs])


def measured_of(seeds: Sequence[tuple[ExitScores, Point]]) -> Measured:
    """Apply the point of each seed to what its exits say of the evaluation split."""
    measured = Measured(good=[], saved=[])
    for scores, point in seeds:
        found = outcome(scores, point.thresholds)
        measured.good.append(found.good)
        measured.saved.append(found.saved)
        measured.left.append(found.where < len(scores.blocks))
        places = enumerate((*scores.blocks, None))
        measured.shares.append(tuple(ExitShare(block=b, share=float((found.where == i).mean())) for i, b in places))
    return measured


def along_the_front(tower: Tower, setting: Setting, routings: Mapping[Way, Sequence[Routing]]) -> Frontier:
    """Measure the ways to run where they save at least each of `FRONTIER` on the gating split, and lose least there."""
    known: dict[tuple[Way, int, str | None], ExitScores] = {}

    def scored(way: Way, seed: int, point: Point) -> ExitScores:
        key = (way, seed, point.schedule)
        if key not in known:
            known[key] = setting.score_point(tower, routings[way][seed], point)
        return known[key]

    found: Frontier = {}
    for level in FRONTIER:
        for way, seeds in routings.items():
            chosen = [choose(routing.front, min_saved=level / 100) for routing in seeds]
            points = [point for point in chosen if point is not None]
            if len(points) == len(seeds):
                measured = measured_of([(scored(way, seed, point), point) for seed, point in enumerate(points)])
                found.setdefault(level, {})[way] = measured
    return found


def head_study(tower: Tower, setting: Setting) -> dict[HeadInput, tuple[float, ...]]:
    """Measure the accuracy of a head after each block on the evaluation split, by what it reads; first seed."""
    splits, blocks = setting.divide(tower, 0), range(1, setting.costs.depth + 1)
    study: dict[HeadInput, tuple[float, ...]] = {}
    for reads in POOLED_INPUTS:
        scores = setting.score(setting.train(tower, splits, blocks, reads, 0), tower.evaluation)
        study[reads] = tuple(scores.good.mean(axis=0).tolist())
    setting.advance(1)
    return study
