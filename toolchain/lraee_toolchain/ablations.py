"""The comparison table: what routing adds over full depth, over several seeds, on images nobody has trained on.

For each seed the training images are divided anew into heads' and gating splits, and heads, gates, exits and
thresholds are made anew. Differences are paired by image; intervals are bootstrapped over images after averaging the
seeds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lraee_toolchain.bootstrap import Interval, bootstrap_mean
from lraee_toolchain.config import ExportConfig
from lraee_toolchain.features import Features, Teacher
from lraee_toolchain.routing import Costs, Material, answers_of, fit_routing, score, train_exits
from lraee_toolchain.thresholds import outcome

FloatArray = NDArray[np.float32]


def concatenate(first: Material, second: Material) -> Material:
    """The images of two splits as one."""

    def joined(a: Any, b: Any) -> Any:
        return np.concatenate([a, b])

    def all_of(kind: type[Any], a: Any, b: Any) -> Any:
        return kind(*(joined(getattr(a, name), getattr(b, name)) for name in kind.__slots__))

    classes = None
    if first.classes is not None and second.classes is not None:
        classes = joined(first.classes, second.classes)
    return Material(
        features=all_of(Features, first.features, second.features),
        teacher=all_of(Teacher, first.teacher, second.teacher),
        classes=classes,
    )


def measure_ablations(
    heads: Material,
    gating: Material,
    evaluation: Material,
    labels: FloatArray,
    *,
    logit_scale: float,
    costs: Costs,
    config: ExportConfig,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Measure the table of full-depth baselines and LRA-EE.

    Args:
        heads: material of the heads' split.
        gating: material of the gating split; both are pooled and divided anew for each seed.
        evaluation: material of the evaluation split, with classes.
        labels: (labels, embed_dim) unit text embeddings.
        logit_scale: factor on the cosine.
        costs: FLOPs of the parts.
        config: exits, budget, training options and number of seeds.
        advance: called after each seed.

    Returns:
        JSON-able rows: ``name``, ``accuracy`` with interval, ``per_seed``, ``flops_saved`` with standard deviation, and
        differences to the two full-depth INT8 rows.
    """
    pool = concatenate(heads, gating)
    count, gate_count = len(pool.features.embedding), len(gating.features.embedding)
    right_full = evaluation.good(evaluation.features.probabilities).astype(np.float64)
    right_float = evaluation.good(evaluation.teacher.probabilities).astype(np.float64)
    ssa_right, lra_right, lra_saved, shares = [], [], [], []
    for seed in range(config.seeds):
        order = np.random.default_rng([config.seed, seed]).permutation(count).astype(np.int64)
        gate_rows, head_rows = np.sort(order[:gate_count]), np.sort(order[gate_count:])
        seed_heads, seed_gating = pool.rows(head_rows), pool.rows(gate_rows)
        (last,) = train_exits(
            seed_heads,
            seed_gating,
            labels,
            [costs.depth],
            reads="patch_mean",
            logit_scale=logit_scale,
            config=config,
            seed=seed,
            int8=True,
        )
        answers = answers_of(last, evaluation.features, labels, logit_scale)
        ssa_right.append(evaluation.good(answers.probabilities).astype(np.float64))
        routing = fit_routing(
            seed_heads, seed_gating, labels, logit_scale=logit_scale, costs=costs, config=config, seed=seed
        )
        scores = score(routing.exits, evaluation, labels, logit_scale, costs)
        good, flops, where = outcome(scores, routing.points["balanced"].thresholds)
        lra_right.append(good)
        lra_saved.append(float(1 - flops.mean() / costs.full))
        blocks = [*(str(block) for block in scores.blocks), "full"]
        shares.append({name: float((where == i).mean()) for i, name in enumerate(blocks)})
        advance(1)
    ssa, lra = np.mean(ssa_right, axis=0), np.mean(lra_right, axis=0)
    ssa_saved = (costs.tail - costs.exit) / costs.full
    rows = [
        _row("FP32, full depth", right_float, [right_float], [0.0]),
        _row("INT8, full depth", right_full, [right_full], [0.0]),
        _row("INT8, SSA head at the last block, full depth", ssa, ssa_right, [ssa_saved]),
        _row("LRA-EE on INT8", lra, lra_right, lra_saved),
    ]
    for row, right in zip(rows, (right_float, right_full, ssa, lra), strict=True):
        row["difference_to_int8"] = _interval(bootstrap_mean(right - right_full))
        row["difference_to_ssa_last"] = _interval(bootstrap_mean(right - ssa))
        row["difference_to_float"] = _interval(bootstrap_mean(right - right_float))
    rows[-1]["exit_shares_per_seed"] = shares
    return {"images": len(right_full), "seeds": config.seeds, "quantizer": config.quantizer, "rows": rows}


def _row(
    name: str, right: NDArray[np.float64], per_seed: list[NDArray[np.float64]], saved: list[float]
) -> dict[str, Any]:
    return {
        "name": name,
        "accuracy": _interval(bootstrap_mean(right)),
        "per_seed": [float(seed.mean()) for seed in per_seed],
        "flops_saved": float(np.mean(saved)),
        "flops_saved_std": float(np.std(saved)),
    }


def _interval(interval: Interval) -> dict[str, float]:
    return {"mean": interval.mean, "low": interval.low, "high": interval.high}
