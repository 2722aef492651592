"""T2: LRA-EE beside every other way to spend fewer FLOPs, at the FLOPs that LRA-EE saves.

All methods of `comparisons.standard_entries` get the exits that LRA-EE chose, for each seed its own, and are swept on
the same gating split. Two are given more: PABEE also exits behind every candidate block, since patience needs many,
and token pruning keeps the whole depth.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lraee_benchmarks.analysis.intervals import mean_over_images
from lraee_toolchain.competitors.methods import Entry, compare, standard_entries
from lraee_toolchain.competitors.pabee import Pabee
from lraee_toolchain.competitors.rules import Outputs, outputs_of
from lraee_toolchain.competitors.token_pruning import keep_for, measure_pruned
from lraee_toolchain.early_exit.routing import Material, Routing, candidates, train_exits
from lraee_toolchain.early_exit.threshold_search import outcome
from lraee_toolchain.evaluation.paper_tables import Setting, Tower, divide, full_depth, interval_json
from lraee_toolchain.parts.runner import Chain

LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
"""Savings on the gating split at which each method's front is drawn."""

PRUNING_LEVELS = (0.15, 0.3, 0.45)
"""Savings at which token pruning is run besides the matched one; each is a run of the whole tower."""

REFERENCE = "LRA-EE"
SEARCHED = "LRA-EE, free LCT"
"""The entry of `comparisons.standard_entries` whose thresholds are searched as the bundle's."""
PRUNING = "token pruning (in the manner of AdaViT)"
PABEE_ALL = "PABEE, exits behind every candidate block"

Levels: TypeAlias = list[tuple[NDArray[np.float64], float] | None]
"""One method's (images,) answers that are right and its saving, at LRA-EE's saving and at `LEVELS`; None: too much."""


def steps_of_methods(seeds: int) -> int:
    """How often `measure_methods` calls `advance`."""
    return seeds + 1 + len(PRUNING_LEVELS)


def measure_methods(
    tower: Tower,
    setting: Setting,
    routings: Sequence[Routing],
    *,
    chain: Chain,
    parts: Path,
    pixels: NDArray[np.uint8],
    information_to_noise: Mapping[int, float],
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Measure every method at LRA-EE's saving, and its front.

    Args:
        tower: the precision to compare on.
        setting: labels, costs, options.
        routings: LRA-EE's, one for each seed of `evidence.divide`.
        chain: the same tower, for token pruning.
        parts: its folder.
        pixels: (images, size, size, 3) uint8 of the evaluation split.
        information_to_noise: INR by block, for the monotone LCT.
        advance: called `steps_of_methods` times.

    Returns:
        ``{"matched": share, "rows": [...]}``, JSON-able. A row's accuracy is None where the method, on the gating
        split of some seed, cannot save so much.
    """
    by_seed = []
    for seed, routing in enumerate(routings):
        by_seed.append(_methods_of_seed(tower, setting, routing, seed, information_to_noise))
        advance(1)
    nothing: Levels = [None] * (1 + len(LEVELS))
    names = dict.fromkeys(name for methods in by_seed for name in methods)
    collected = {
        name: [list(level) for level in zip(*(methods.get(name, nothing) for methods in by_seed), strict=True)]
        for name in names
    }
    matched = float(np.mean([found[1] for found in collected[REFERENCE][0] if found is not None]))
    collected[PRUNING] = _pruned(tower, setting, chain, parts, pixels, matched, advance)
    lra_ee = np.mean([found[0] for found in collected[REFERENCE][0] if found is not None], axis=0)
    full = full_depth(tower).mean
    rows = [_row(name, levels, lra_ee, full) for name, levels in collected.items()]
    return {"matched": matched, "rows": rows}


def _methods_of_seed(
    tower: Tower, setting: Setting, routing: Routing, seed: int, information_to_noise: Mapping[int, float]
) -> dict[str, Levels]:
    """What each method does at LRA-EE's saving and at `LEVELS`; only LRA-EE itself when it kept no exit."""
    heads, gating = divide(tower, seed, setting.config.seed)
    balanced = routing.points["balanced"]
    scores = setting.score(routing, tower.evaluation)
    good, flops, _ = outcome(scores, balanced.thresholds)
    own: Levels = [(good, float(1 - flops.mean() / setting.costs.full)), *(None for _ in LEVELS)]
    methods: dict[str, Levels] = {REFERENCE: own}
    entries = _entries(tower, setting, routing, heads, gating, seed, information_to_noise)
    for row in compare(entries, wanted=(balanced.saved, *LEVELS)):
        found = None
        if row.routed is not None and row.saved is not None:
            found = (row.routed.good, row.saved)
        methods.setdefault(row.name, []).append(found)
    if entries:
        own[1:] = methods[SEARCHED][1:]
    return methods


def _entries(
    tower: Tower,
    setting: Setting,
    routing: Routing,
    heads: Material,
    gating: Material,
    seed: int,
    information_to_noise: Mapping[int, float],
) -> dict[str, Entry]:
    """Every method of one seed; none when LRA-EE kept no exit."""
    if not routing.exits:
        return {}
    entries = standard_entries(
        routing.exits,
        heads,
        gating,
        tower.evaluation,
        setting.labels,
        logit_scale=setting.logit_scale,
        costs=setting.costs,
        config=setting.config,
        seed=seed,
        int8=tower.name != "FP32",
        information_to_noise=[information_to_noise[trained.block] for trained in routing.exits],
    )
    everywhere = train_exits(
        heads,
        gating,
        setting.labels,
        candidates("auto", setting.costs.depth),
        reads="both" if setting.config.reads == "auto" else setting.config.reads,
        logit_scale=setting.logit_scale,
        config=setting.config,
        seed=seed,
        int8=tower.name != "FP32",
    )
    entries[PABEE_ALL] = Entry(
        method=Pabee(),
        gating=_outputs(gating, everywhere, setting),
        evaluation=_outputs(tower.evaluation, everywhere, setting),
    )
    return entries


def _outputs(material: Material, exits: Sequence[Any], setting: Setting) -> Outputs:
    return outputs_of(exits, material, setting.labels, logit_scale=setting.logit_scale, costs=setting.costs)


def _pruned(
    tower: Tower,
    setting: Setting,
    chain: Chain,
    parts: Path,
    pixels: NDArray[np.uint8],
    matched: float,
    advance: Callable[[int], None],
) -> list[Levels]:
    """Token pruning at the matched saving and at `PRUNING_LEVELS`; nothing is trained, so there are no seeds."""
    shape = chain.stem(np.ascontiguousarray(pixels[:1])).shape
    classes = tower.evaluation.classes
    assert classes is not None
    rows: list[Levels] = []
    for saved in (matched, *PRUNING_LEVELS):
        keep = keep_for(saved, setting.costs, tokens=shape[1], width=shape[2])
        pruned = measure_pruned(chain, parts, pixels, classes, setting.costs, keep=keep)
        rows.append([(pruned.good, pruned.saved) if pruned.saved >= saved - 0.05 else None])
        advance(1)
    return rows


def _row(
    name: str,
    levels: Sequence[Levels],
    lra_ee: NDArray[np.float64],
    full: NDArray[np.float64],
) -> dict[str, Any]:
    """One method, mean of the seeds."""
    front = []
    for level in levels:
        found = [seed for seed in level if seed is not None]
        if len(found) == len(level):
            front.append(
                {
                    "saved": float(np.mean([saved for _, saved in found])),
                    "accuracy": float(np.mean([good.mean() for good, _ in found])),
                }
            )
    row: dict[str, Any] = {"name": name, "front": sorted(front, key=lambda point: point["saved"])}
    at_match = [seed for seed in levels[0] if seed is not None]
    if len(at_match) < len(levels[0]):
        return row | dict.fromkeys(
            ("accuracy", "flops_saved", "flops_saved_std", "difference_to_lra_ee", "difference_to_int8")
        )
    good = np.mean([good for good, _ in at_match], axis=0)
    saved = [saved for _, saved in at_match]
    return row | {
        "accuracy": interval_json(mean_over_images(good)),
        "flops_saved": float(np.mean(saved)),
        "flops_saved_std": float(np.std(saved)),
        "difference_to_lra_ee": interval_json(mean_over_images(good - lra_ee)),
        "difference_to_int8": interval_json(mean_over_images(good - full)),
    }
