"""The paper's tables for the user's own model and data: T1 (main), T3 (factorial) and T4 (quadrants).

T1 is measured on FP32, dynamic, naive and strong INT8, so that repairing bad quantization is told apart from what
routing adds.

For each seed the training images are divided anew into heads' and gating splits, and heads, gates, exits and
thresholds are made anew. Differences are paired by image; intervals are bootstrapped over images after averaging the
seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lraee_benchmarks.analysis.intervals import Estimate, mean_over_images
from lraee_exporters.graphs.exit import HEAD_INPUTS
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.early_exit.features import Features, Teacher
from lraee_toolchain.early_exit.routing import Costs, Material, Routing, answers_of, fit_routing, score, train_exits
from lraee_toolchain.early_exit.threshold_search import ExitScores, outcome

FloatArray = NDArray[np.float32]
GoodArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tower:
    """One precision of the tower, as cached material of every split."""

    name: str
    """See `stages.Precision`."""
    pool: Material
    """Heads' and gating splits together."""
    gate_count: int
    """Images of the pool that gates and thresholds get."""
    evaluation: Material
    """With classes."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """What all measurements share."""

    labels: FloatArray
    """(labels, embed_dim) unit text embeddings."""
    logit_scale: float
    costs: Costs
    config: ExportConfig

    def fit(self, heads: Material, gating: Material, *, seed: int, int8: bool) -> Routing:
        """Heads, gates, exits and thresholds, as an export makes them."""
        return fit_routing(
            heads,
            gating,
            self.labels,
            logit_scale=self.logit_scale,
            costs=self.costs,
            config=self.config,
            seed=seed,
            int8=int8,
        )

    def score(self, routing: Routing, material: Material) -> ExitScores:
        """What a routing's exits would do for a split."""
        return score(routing.exits, material, self.labels, self.logit_scale, self.costs)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """One row before it is summarized: per seed and image."""

    good: list[GoodArray]
    """For each seed (images,) 1 where the answer is right."""
    saved: list[float]
    """For each seed the share of full-depth FLOPs."""
    shares: list[dict[str, float]]
    """For each seed the share of images by the block where they left; empty at full depth."""
    left: list[NDArray[np.bool_]] = field(default_factory=list)
    """For each seed (images,) whether the image left early; empty at full depth."""

    @property
    def mean(self) -> GoodArray:
        """(images,) averaged over the seeds."""
        return np.asarray(np.mean(self.good, axis=0))


def concatenate(first: Material, second: Material) -> Material:
    """The images of two splits as one."""

    def all_of(kind: type[Any], a: Any, b: Any) -> Any:
        return kind(*(np.concatenate([getattr(a, name), getattr(b, name)]) for name in kind.__slots__))

    classes = None
    if first.classes is not None and second.classes is not None:
        classes = np.concatenate([first.classes, second.classes])
    return Material(
        features=all_of(Features, first.features, second.features),
        teacher=all_of(Teacher, first.teacher, second.teacher),
        classes=classes,
    )


def divide(tower: Tower, seed: int, first_seed: int) -> tuple[Material, Material]:
    """The pool divided into heads' and gating splits, the same way for every precision."""
    order = np.random.default_rng([first_seed, seed]).permutation(len(tower.pool.features.embedding)).astype(np.int64)
    gates, heads = np.sort(order[: tower.gate_count]), np.sort(order[tower.gate_count :])
    return tower.pool.rows(heads), tower.pool.rows(gates)


def full_depth(tower: Tower) -> Measured:
    """The tower's own [CLS] head."""
    good = tower.evaluation.good(tower.evaluation.features.probabilities).astype(np.float64)
    return Measured(good=[good], saved=[0.0], shares=[])


def ssa_at_the_end(tower: Tower, setting: Setting) -> Measured:
    """Full depth with an SSA head at the last block, trained like every exit."""
    good, costs = [], setting.costs
    for seed in range(setting.config.seeds):
        heads, gating = divide(tower, seed, setting.config.seed)
        (last,) = train_exits(
            heads,
            gating,
            setting.labels,
            [costs.depth],
            reads="patch_mean",
            logit_scale=setting.logit_scale,
            config=setting.config,
            seed=seed,
            int8=tower.name != "FP32",
        )
        answers = answers_of(last, tower.evaluation.features, setting.labels, setting.logit_scale)
        good.append(tower.evaluation.good(answers.probabilities).astype(np.float64))
    return Measured(good=good, saved=[1 - (costs.up_to(costs.depth) + costs.exit) / costs.full] * len(good), shares=[])


def lra_ee(tower: Tower, setting: Setting) -> tuple[Measured, list[Routing]]:
    """Adaptive at the default operating point."""
    measured, routings = Measured(good=[], saved=[], shares=[]), []
    for seed in range(setting.config.seeds):
        heads, gating = divide(tower, seed, setting.config.seed)
        routing = setting.fit(heads, gating, seed=seed, int8=tower.name != "FP32")
        routings.append(routing)
        scores = setting.score(routing, tower.evaluation)
        good, flops, where = outcome(scores, routing.points["balanced"].thresholds)
        blocks = [*(str(block) for block in scores.blocks), "full"]
        measured.good.append(good)
        measured.saved.append(float(1 - flops.mean() / setting.costs.full))
        measured.left.append(where < len(scores.blocks))
        measured.shares.append({name: float((where == i).mean()) for i, name in enumerate(blocks)})
    return measured, routings


def label_free(tower: Tower) -> Tower:
    """The same images without their labels, for heads and gates; the evaluation keeps them."""
    return replace(tower, pool=replace(tower.pool, classes=None))


def measure_evidence(
    tower: Tower,
    others: Mapping[str, Callable[[], Tower]],
    setting: Setting,
    *,
    order: Sequence[str],
    advance: Callable[[int], None],
) -> tuple[dict[str, Any], list[Routing]]:
    """Measure T1, T3, T4 and the head study.

    Args:
        tower: the precision that is exported, on which T3, T4 and the head study are measured.
        others: the other precisions, among them ``FP32``; called one at a time, since the features of 128,000 images
            of ViT-B/32 take 10 GB for each.
        setting: labels, costs, options.
        order: all precisions by name, as rows are to stand.
        advance: called after each of `steps_of` measurements.

    Returns:
        JSON-able tables (``rows``, ``factorial``, ``quadrants``, ``selectivity``, ``fronts``, ``heads``), and the
        routings of `tower`, one for each seed.
    """

    def done(measured: Measured) -> Measured:
        advance(1)
        return measured

    main = tower.name
    full, adaptive = {main: full_depth(tower)}, dict[str, Measured]()
    for name, load in others.items():
        other = load()
        full[name] = full_depth(other)
        adaptive[name] = done(lra_ee(other, setting)[0])
    adaptive[main], routings = lra_ee(tower, setting)
    advance(1)
    ssa = done(ssa_at_the_end(tower, setting))
    baselines = {"float": full["FP32"].mean, "int8": full[main].mean, "ssa_last": ssa.mean}
    rows = [_row(f"{name}, full depth", full[name], baselines) for name in order]
    rows.append(_row(f"{main}, SSA head at the last block, full depth", ssa, baselines))
    rows += [_row(f"LRA-EE on {name}", adaptive[name], baselines) for name in order]
    free, _ = lra_ee(label_free(tower), setting)
    rows.append(_row(f"LRA-EE on {main}, label-free", done(free), baselines))
    paper = replace(setting, config=replace(setting.config, reads="patch_mean"))
    ssa_only, _ = lra_ee(tower, paper)
    rows.append(_row(f"LRA-EE on {main}, SSA heads only", done(ssa_only), baselines))
    hard = replace(paper, config=replace(paper.config, heads=replace(paper.config.heads, distillation=0.0)))
    hard_end = done(ssa_at_the_end(tower, hard))
    hard_exits, _ = lra_ee(tower, hard)
    factorial = [
        ("(i) [CLS], full depth", full[main]),
        ("(ii) SSA at the last block, hard labels, full depth", hard_end),
        ("(iii) SSA at the last block, distilled, full depth", ssa),
        ("(iv) LRA-EE with SSA heads, hard labels, adaptive", done(hard_exits)),
        ("(v) LRA-EE with SSA heads, distilled, adaptive", ssa_only),
    ]
    chosen, study = adaptive[main], head_study(tower, setting)
    advance(1)
    tables = {
        "images": len(baselines["float"]),
        "seeds": setting.config.seeds,
        "main": main,
        "rows": rows,
        "factorial": [_row(name, measured, baselines) for name, measured in factorial],
        "quadrants": quadrants(chosen.good, baselines["int8"]),
        "selectivity": [
            selectivity(good, left, baselines["int8"]) for good, left in zip(chosen.good, chosen.left, strict=True)
        ],
        "fronts": [[_point(point) for point in routing.front] for routing in routings],
        "exits_kept": [[trained.block for trained in routing.exits] for routing in routings],
        "heads": study,
    }
    return tables, routings


def steps_of(towers: int) -> int:
    """How often `measure_evidence` calls `advance`."""
    return towers + 6


def head_study(tower: Tower, setting: Setting) -> dict[str, list[float]]:
    """Accuracy on the evaluation split of a head behind every block, by what it reads; first seed."""
    heads, gating = divide(tower, 0, setting.config.seed)
    blocks = list(range(1, setting.costs.depth + 1))
    study: dict[str, list[float]] = {}
    for reads in HEAD_INPUTS:
        exits = train_exits(
            heads,
            gating,
            setting.labels,
            blocks,
            reads=reads,
            logit_scale=setting.logit_scale,
            config=setting.config,
            seed=0,
            int8=tower.name != "FP32",
        )
        scores = score(exits, tower.evaluation, setting.labels, setting.logit_scale, setting.costs)
        study[reads] = [float(value) for value in scores.good.mean(axis=0)]
    return study


def quadrants(good: list[GoodArray], full: GoodArray) -> dict[str, float]:
    """The paper's four quadrants in images, mean of the seeds."""
    return {
        "both_right": float(np.mean([(seed * full).sum() for seed in good])),
        "rescue": float(np.mean([(seed * (1 - full)).sum() for seed in good])),
        "loss": float(np.mean([((1 - seed) * full).sum() for seed in good])),
        "both_wrong": float(np.mean([((1 - seed) * (1 - full)).sum() for seed in good])),
    }


def selectivity(good: GoodArray, left: NDArray[np.bool_], full: GoodArray) -> dict[str, float | None]:
    """How right the images that left early are, and the others; beside it full depth on the same images."""

    def mean(values: GoodArray) -> float | None:
        return float(values.mean()) if len(values) else None

    return {
        "left_early": float(left.mean()),
        "accuracy": float(good.mean()),
        "left_accuracy": mean(good[left]),
        "stayed_accuracy": mean(good[~left]),
        "full_accuracy_of_left": mean(full[left]),
        "full_accuracy_of_stayed": mean(full[~left]),
    }


def _point(point: Any) -> dict[str, float]:
    return {"accuracy": point.accuracy, "saved": point.saved}


def _row(name: str, measured: Measured, baselines: Mapping[str, GoodArray]) -> dict[str, Any]:
    differences = {
        f"difference_to_{key}": interval_json(mean_over_images(measured.mean - good)) for key, good in baselines.items()
    }
    return {
        "name": name,
        "accuracy": interval_json(mean_over_images(measured.mean)),
        "per_seed": [float(seed.mean()) for seed in measured.good],
        "flops_saved": float(np.mean(measured.saved)),
        "flops_saved_std": float(np.std(measured.saved)),
        **differences,
        "exit_shares": measured.shares,
    }


def interval_json(interval: Estimate) -> dict[str, float]:
    """An interval as JSON-able data."""
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
