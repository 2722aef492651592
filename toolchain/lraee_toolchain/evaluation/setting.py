"""What all measurements of the paper's tables share: labels, costs and options, and the images of one precision.

For each seed the training images are divided into heads' and gating splits, in the same way for every precision. Where
the trunk was tuned on the heads' split, that split stays what it is: gates fitted on images that the trunk learned from
would be too sure of themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lraee_exporters.graphs.exit import HeadInput
from lraee_toolchain.config.options import ExportConfig, Precision
from lraee_toolchain.early_exit.exits import TrainedExit, score, train_exits
from lraee_toolchain.early_exit.fitting import fit_routing
from lraee_toolchain.early_exit.outcomes import ExitScores, Point
from lraee_toolchain.early_exit.routing import Routing
from lraee_toolchain.early_exit.task import Costs, ExitTask, Material, Route

Splits: TypeAlias = tuple[Material, Material]
"""The heads' and the gating split."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MergedTower:
    """The same tower under a merging schedule."""

    schedule: str
    """Its name."""
    costs: Costs
    pool: Material
    """As `Tower.pool`."""
    evaluation: Material
    """With classes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tower:
    """One precision of the tower, as cached material of every split."""

    name: Precision
    pool: Material
    """Heads' and gating splits together."""
    gate_count: int
    """Images of the pool that gates and thresholds get."""
    evaluation: Material
    """With classes."""
    merged: tuple[MergedTower, ...] = ()
    """Under each merging schedule."""

    @classmethod
    def of(cls, name: Precision, heads: Material, gating: Material, evaluation: Material) -> Tower:
        """Join the training splits of one precision; nothing is read or copied."""
        count = len(gating.features)
        return cls(name=name, pool=heads.joined(gating), gate_count=count, evaluation=evaluation)

    def without_labels(self) -> Tower:
        """The same images without labels for heads and gates; the evaluation keeps them."""
        merged = tuple(replace(one, pool=replace(one.pool, classes=None)) for one in self.merged)
        return replace(self, pool=replace(self.pool, classes=None), merged=merged)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """Labels, costs and options; every fit of the tables goes through here."""

    task: ExitTask
    """For any precision and seed."""
    advance: Callable[[int], None]
    """Called with 1 after each measurement."""
    is_tuned: bool = False
    """Whether the trunk learned from the heads' split."""

    @property
    def config(self) -> ExportConfig:
        """Options of the export."""
        return self.task.config

    @property
    def costs(self) -> Costs:
        """FLOPs of the parts."""
        return self.task.costs

    def with_config(self, config: ExportConfig) -> Setting:
        """The same with other options."""
        return replace(self, task=replace(self.task, config=config))

    def with_pooled_heads(self) -> Setting:
        """The same with the paper's heads, which read the mean patch token."""
        config = replace(self.config, reads="patch_mean")
        return replace(self, task=replace(self.task, config=config, kinds={}))

    def without_learned(self) -> Setting:
        """The same with heads that all learn anew, for fits that must not see what others learned from."""
        return replace(self, task=replace(self.task, learned={}))

    def task_of(self, tower: Tower, seed: int) -> ExitTask:
        """The task for one precision and seed."""
        return replace(self.task, int8=tower.name != "FP32", seed=seed)

    def divide(self, tower: Tower, seed: int) -> Splits:
        """Divide the pool into heads' and gating splits, in the same way for every precision.

        The split that a trunk was tuned on is the heads' for every seed.
        """
        heads, gates = self._rows(tower, seed)
        return tower.pool.rows(heads), tower.pool.rows(gates)

    def _rows(self, tower: Tower, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Choose the rows of the pool for heads and for gates."""
        if self.is_tuned:
            rows = np.arange(len(tower.pool.features), dtype=np.int64)
            return rows[: -tower.gate_count], rows[-tower.gate_count :]
        generator = np.random.default_rng([self.config.seed, seed])
        order = generator.permutation(len(tower.pool.features)).astype(np.int64)
        gates, heads = np.sort(order[: tower.gate_count]), np.sort(order[tower.gate_count :])
        return heads, gates

    def fit(self, tower: Tower, splits: Splits, seed: int) -> Routing:
        """Fit heads, gates, exits and thresholds, as an export does."""
        heads, gating = splits
        task = self.task_of(tower, seed)
        return fit_routing(task, [Route(costs=task.costs, heads=heads, gating=gating)])

    def fit_merged(self, tower: Tower, seed: int) -> Routing:
        """Fit exits without merging and under every schedule, as an export with ``--merge-tokens`` does."""
        heads, gates = self._rows(tower, seed)
        task = self.task_of(tower, seed)
        routes = [Route(costs=task.costs, heads=tower.pool.rows(heads), gating=tower.pool.rows(gates))]
        routes += [
            Route(costs=one.costs, heads=one.pool.rows(heads), gating=one.pool.rows(gates), schedule=one.schedule)
            for one in tower.merged
        ]
        return fit_routing(task, routes)

    def score_point(self, tower: Tower, routing: Routing, point: Point) -> ExitScores:
        """Compute what the exits that a point has thresholds for would do for the evaluation split."""
        if point.schedule is None:
            return self.score(routing.exits, tower.evaluation)
        merged = next(one for one in tower.merged if one.schedule == point.schedule)
        task = replace(self.task, costs=merged.costs)
        exits = routing.exits_under(point.schedule)
        return score(task, exits, merged.evaluation, schedule=point.schedule)

    def train(
        self, tower: Tower, splits: Splits, blocks: Sequence[int], reads: HeadInput, seed: int
    ) -> list[TrainedExit]:
        """Train heads and gates after `blocks`, without choosing among them."""
        return train_exits(self.task_of(tower, seed), *splits, blocks, reads=reads)

    def score(self, exits: Sequence[TrainedExit], material: Material) -> ExitScores:
        """Compute what exits would do for a split."""
        return score(self.task, exits, material)
